"""Versions that come and go under traffic, and flags that change what answers look like."""

import concurrent.futures
import os
import pathlib
import shutil
import tempfile
import threading
import time

import grpc
import numpy as np
from harness import MODELS, ClientTest, Server, make_array, make_tensor, needs_tfs_models, spec
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

CLIENTS = 32
SECONDS = float(os.environ.get("KINGLET_SWAP_SECONDS", 8))
MODEL = MODELS / "saved_model_half_plus_two_cpu" / "00000123"


def request_of(number):
    request = predict_pb2.PredictRequest(model_spec=spec("m"))
    request.inputs["x"].CopyFrom(make_tensor([[number]]))
    return request


@needs_tfs_models
class Versions(ClientTest):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="kinglet-clients-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        (self.folder / "m").mkdir()

    def publish(self, version):
        """Makes a version appear at once, complete."""
        shutil.copytree(MODEL, self.folder / "staging")
        (self.folder / "staging").rename(self.folder / "m" / str(version))

    def serve(self, *flags):
        server = Server("--model_name=m", f"--model_base_path={self.folder / 'm'}", *flags)
        self.addCleanup(server.stop)
        return server.wait_for("m")

    def test_swaps_lose_no_request(self):
        self.publish(1)
        server = self.serve("--file_system_poll_wait_seconds=1")
        done = threading.Event()
        seen = set()

        def client(seed):
            calls = 0
            with server.connect() as channel:
                stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
                while not done.is_set():
                    number = float(seed + calls)
                    answer = stub.Predict(request_of(number), timeout=30)
                    self.assertEqual(make_array(answer.outputs["y"]).item(), number / 2 + 2)
                    seen.add(answer.model_spec.version.value)
                    calls += 1
            return calls

        with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
            clients = [pool.submit(client, seed) for seed in range(CLIENTS)]
            end = time.monotonic() + SECONDS
            version = 1
            try:
                while time.monotonic() < end:
                    time.sleep(1)
                    version += 1
                    self.publish(version)
                    if version > 2:
                        shutil.rmtree(self.folder / "m" / str(version - 2))
            finally:
                done.set()
            # A lost request raises here.
            calls = [each.result() for each in clients]
        self.assertTrue(all(calls))
        self.assertGreaterEqual(len(seen), 3, f"{sum(calls)} calls saw versions {seen} of {version}")

    def test_an_old_version_is_gone_when_the_new_one_answers(self):
        self.publish(1)
        server = self.serve("--file_system_poll_wait_seconds=1")
        self.publish(2)
        end = time.monotonic() + 30
        while server.predict("m", x=[[1.0]]).model_spec.version.value != 2:
            self.assertLess(time.monotonic(), end)
            time.sleep(0.05)
        while True:
            try:
                server.predict(spec("m", version=1), x=[[1.0]])
            except grpc.RpcError as error:
                self.assertEqual(error.code(), grpc.StatusCode.NOT_FOUND)
                self.assertEqual(error.details(), "Servable not found for request: Specific(m, 1)")
                break
            self.assertLess(time.monotonic(), end)
            time.sleep(0.05)

    def test_answers_as_tensor_content(self):
        self.publish(1)
        server = self.serve("--enable_serialization_as_tensor_content=true")
        output = server.predict("m", x=[[2.0], [4.0]]).outputs["y"]
        self.assertEqual(output.tensor_content, np.array([3.0, 4.0], "<f4").tobytes())
        self.assertFalse(output.float_val)
