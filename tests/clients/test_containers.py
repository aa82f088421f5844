"""What containers ask for: KServe's arguments on a read-only model without a version folder, one port, $PORT, health."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import time
import unittest
import urllib.error
import urllib.request

import grpc
import numpy as np
from harness import MODELS, ROOT, SHARED, ClientTest, binary, free_port, make_array, needs_tfs_models
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

KSERVE = ROOT / "packaging" / "kserve.yaml"
LARGE = SHARED / "models" / "onnx" / "effnet_lite0" / "model.onnx"


def start(test, arguments, environment):
    """A server with nothing in its environment but this."""
    process = subprocess.Popen(
        [binary(), *arguments], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )

    def stop():
        process.terminate()
        process.wait(30)

    test.addCleanup(stop)
    return process


def wait_until_ready(test, *arguments, environment=None):
    end = time.monotonic() + 30
    while subprocess.run([binary(), "health", *arguments], env=environment, capture_output=True).returncode:
        test.assertLess(time.monotonic(), end, "not ready")
        time.sleep(0.05)


def predict(port, body, model="m"):
    url = f"http://127.0.0.1:{port}/v1/models/{model}:predict"
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode())) as answer:
        return json.load(answer)


def predict_by_grpc(port, **inputs):
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "m"
        for name, values in inputs.items():
            array = np.array(values, np.float32)
            request.inputs[name].dtype = 1
            for size in array.shape:
                request.inputs[name].tensor_shape.dim.add(size=size)
            request.inputs[name].float_val.extend(array.flatten().tolist())
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        return {name: make_array(value) for name, value in stub.Predict(request, timeout=10).outputs.items()}


class Containers(ClientTest):
    @needs_tfs_models
    def test_the_arguments_of_kserve_on_a_read_only_model_without_version(self):
        folder = pathlib.Path(tempfile.mkdtemp(prefix="kinglet-kserve-"))
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        model = folder / "models"
        shutil.copytree(MODELS / "saved_model_half_plus_two_cpu" / "00000123", model)
        for path in [*model.rglob("*"), model]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        rest, classic = free_port(), free_port()
        text = KSERVE.read_text()
        arguments = re.findall(r"^ +- (--\S+)$", text, re.MULTILINE)
        self.assertEqual(len(arguments), 5)
        exchanged = {"{{.Name}}": "m", "=9000": f"={classic}", "=8080": f"={rest}", "/mnt/models": str(model)}
        for old, new in exchanged.items():
            arguments = [argument.replace(old, new) for argument in arguments]
        environment = dict(re.findall(r"- name: (KINGLET_\w+)\n +value: \"?([^\"\n]+)", text))
        self.assertEqual(set(environment), {"KINGLET_ADDRESS", "KINGLET_INSECURE"})
        process = start(self, arguments, environment | {"PORT": str(rest)})
        wait_until_ready(self, f"--port={rest}")
        for port in (rest, classic):
            self.assertEqual(predict(port, {"instances": [1.0, 2.0, 5.0]}), {"predictions": [2.5, 3.0, 4.5]})
            self.assertEqual(predict_by_grpc(port, x=[[1.0], [2.0]])["y"].flatten().tolist(), [2.5, 3.0])
        with urllib.request.urlopen(f"http://127.0.0.1:{rest}/metrics") as metrics:
            self.assertRegex(metrics.read(), rb"(?m)^kinglet_ready\S* 1$")
        process.terminate()
        self.assertEqual(process.wait(30), 0)

    def test_one_port_from_the_platform(self):
        port = free_port()
        environment = {"PORT": str(port), "KINGLET_ADDRESS": "0.0.0.0", "KINGLET_INSECURE": "true"}
        start(self, [], environment)
        wait_until_ready(self, environment=environment)
        answer = predict(port, {"instances": [1.0]}, "half_plus_three")
        self.assertEqual(answer, {"predictions": [3.5]})
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=10)
        self.assertEqual(answer.status, health_pb2.HealthCheckResponse.SERVING)


class Memory(ClientTest):
    @needs_tfs_models
    def test_a_model_that_does_not_fit_is_refused_with_numbers(self):
        model = MODELS / "saved_model_half_plus_two_cpu"
        port = free_port()
        flags = [f"--http_port={port}", "--model_name=m", f"--model_base_path={model}", "--max_num_load_retries=0"]
        refused = subprocess.run([binary(), *flags, "--memory_limit=3"], capture_output=True, text=True, timeout=60)
        self.assertEqual(refused.returncode, 255)
        self.assertIn("the model needs about", refused.stderr)
        start(self, [*flags, "--memory_limit=1K"], {})
        wait_until_ready(self, f"--port={port}")
        self.assertEqual(predict(port, {"instances": [1.0]}), {"predictions": [2.5]})
        with self.assertRaises(urllib.error.HTTPError) as raised:
            predict(port, {"instances": [1.0] * 10000})
        self.assertEqual(raised.exception.code, 429)
        self.assertIn("limit", raised.exception.read().decode())
        self.assertEqual(predict(port, {"instances": [1.0]}), {"predictions": [2.5]}, "others go on")

    @unittest.skipUnless(LARGE.is_file(), f"no model at {LARGE}")
    def test_two_versions_in_the_memory_of_one(self):
        """A new version that does not fit beside the old one is refused, or the old one goes first."""
        for policy, expected in [("keep_available", "RESOURCE_EXHAUSTED"), ("unload_first", "AVAILABLE")]:
            folder = pathlib.Path(tempfile.mkdtemp(prefix="kinglet-memory-"))
            self.addCleanup(shutil.rmtree, folder, ignore_errors=True)

            def publish(version):
                shutil.copytree(LARGE.parent, folder / "m" / "copying")
                (folder / "m" / "copying").rename(folder / "m" / str(version))

            def answer():
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models/m") as response:
                    return {each["version"]: each for each in json.load(response)["model_version_status"]}

            publish(1)
            port = free_port()
            flags = [f"--http_port={port}", "--model_name=m", f"--model_base_path={folder / 'm'}"]
            # The model takes 24.5 MB, of which it holds 18.5.
            start(self, [*flags, "--memory_limit=35M", f"--swap_policy={policy}"], {})
            wait_until_ready(self, f"--port={port}")
            publish(2)
            end = time.monotonic() + 30
            while expected not in json.dumps(answer().get("2", {})):
                self.assertLess(time.monotonic(), end, answer())
                time.sleep(0.05)
            kept = "AVAILABLE" if policy == "keep_available" else "END"
            self.assertEqual(answer()["1"]["state"], kept)


if __name__ == "__main__":
    unittest.main()
