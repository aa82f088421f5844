#!/usr/bin/env python3
"""half_plus_two behind kinglet and its peers, REST and gRPC, in one run.

    benches/server/compare.py --kinglet target/x86_64-unknown-linux-gnu/release/kinglet \
        --model ../shared/models/tfs/saved_model_half_plus_two_cpu --client .venv/bin/python \
        --mlserver .venv-peers/bin/python --tensorflow .venv-peers/bin/python --triton .venv-triton/bin/python

Load comes from h2load (Debian: nghttp2-client), one thread, which logs the time of every request. Servers
run one at a time; rounds go through all of them in turn, so that what else the machine does meets each
alike. A cell is the median over the rounds. Peers whose interpreter is not given are left out:
`pip install mlserver` serves a NumPy model over REST and gRPC (Open Inference Protocol), and
`triton_peer.py` is Triton with its Python backend (`pip install nvidia-pytriton`; its embedded interpreter wants
a Python 3.11 of Debian's patch level or older), and `tensorflow_peer.py` is TensorFlow itself behind a grpcio server that speaks TensorFlow Serving's Predict
(`pip install tensorflow-cpu grpcio`, `pip install --no-deps tensorflow-serving-api`).
"""

import argparse
import contextlib
import json
import os
import pathlib
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
ROWS = [[1.0], [2.0], [5.0]]
PREDICT_MESSAGE = """
import sys
from tensorflow_serving.apis import predict_pb2
request = predict_pb2.PredictRequest()
request.model_spec.name = "half_plus_two"
x = request.inputs["x"]
x.dtype = 1
for size in (3, 1):
    x.tensor_shape.dim.add(size=size)
x.float_val.extend([1.0, 2.0, 5.0])
sys.stdout.buffer.write(request.SerializeToString())
"""
INFER_MESSAGE = """
import sys
from {module} import {name} as messages
request = messages.ModelInferRequest(model_name="half_plus_two")
x = request.inputs.add(name="x", datatype="FP32", shape=[3, 1])
x.contents.fp32_contents.extend([1.0, 2.0, 5.0])
sys.stdout.buffer.write(request.SerializeToString())
"""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Peer:
    """A server that can be started, and the calls that it answers: protocol -> (URL, body, headers)."""

    def __init__(self, name, command, calls, ready, environment=()):
        self.name, self.command, self.calls, self.ready = name, command, calls, ready
        self.environment = {**os.environ, **dict(environment)}

    @contextlib.contextmanager
    def running(self):
        with tempfile.TemporaryFile() as log:
            server = subprocess.Popen(self.command, stdout=log, stderr=log, env=self.environment)
            try:
                end = time.monotonic() + 120
                while not self.ready():
                    if server.poll() is not None or time.monotonic() > end:
                        log.seek(0)
                        sys.exit(f"{self.name} did not start:\n{log.read().decode(errors='replace')}")
                    time.sleep(0.1)
                yield server
            finally:
                server.terminate()
                try:
                    server.wait(30)
                except subprocess.TimeoutExpired:
                    server.kill()


def answers(url, body=None):
    try:
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


def listens(port):
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex(("127.0.0.1", port)) == 0


def grpc_body(python, script):
    message = subprocess.run([python, "-c", script], check=True, capture_output=True).stdout
    return b"\0" + struct.pack(">I", len(message)) + message


GRPC_HEADERS = ["content-type: application/grpc", "te: trailers"]
JSON_HEADERS = ["content-type: application/json"]


def kinglet(asked):
    rest, grpc = free_port(), free_port()
    url = f"http://127.0.0.1:{rest}/v1/models/half_plus_two:predict"
    body = json.dumps({"instances": ROWS}).encode()
    command = [
        asked.kinglet, "serve", "--model_name=half_plus_two", f"--model_base_path={asked.model}",
        f"--rest_api_port={rest}", f"--port={grpc}", "--log_level=warn",
    ]
    calls = {
        "REST": (url, body, JSON_HEADERS),
        "gRPC": (
            f"http://127.0.0.1:{grpc}/tensorflow.serving.PredictionService/Predict",
            grpc_body(asked.client, PREDICT_MESSAGE),
            GRPC_HEADERS,
        ),
    }
    return Peer("kinglet", command, calls, lambda: answers(url, body))


def inference_calls(rest, grpc, python, module, name):
    """The Open Inference Protocol's calls, with message classes that `python` has as `name` of `module`."""
    url = f"http://127.0.0.1:{rest}/v2/models/half_plus_two/infer"
    tensor = {"name": "x", "shape": [3, 1], "datatype": "FP32", "data": [row[0] for row in ROWS]}
    body = json.dumps({"inputs": [tensor]}).encode()
    message = grpc_body(python, INFER_MESSAGE.format(module=module, name=name))
    path = f"http://127.0.0.1:{grpc}/inference.GRPCInferenceService/ModelInfer"
    return {"REST": (url, body, JSON_HEADERS), "gRPC": (path, message, GRPC_HEADERS)}


def mlserver(asked, folder):
    rest, grpc, metrics = free_port(), free_port(), free_port()
    settings = {
        "host": "127.0.0.1", "http_port": rest, "grpc_port": grpc, "metrics_port": metrics,
        "parallel_workers": 0, "debug": False,
    }
    model = {"name": "half_plus_two", "implementation": "mlserver_model.HalfPlusTwo"}
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))
    (folder / "mlserver_model.py").write_text((HERE / "mlserver_model.py").read_text())
    calls = inference_calls(rest, grpc, asked.mlserver, "mlserver.grpc", "dataplane_pb2")
    url, body, _ = calls["REST"]
    start = "import sys; from mlserver.cli import main; sys.argv = ['mlserver', 'start', sys.argv[1]]; main()"
    return Peer(
        "MLServer", [asked.mlserver, "-c", start, str(folder)], calls, lambda: answers(url, body),
        {"PYTHONPATH": str(folder)},
    )


def triton(asked):
    rest, grpc, metrics = free_port(), free_port(), free_port()
    calls = inference_calls(rest, grpc, asked.triton, "tritonclient.grpc", "service_pb2")
    url, body, _ = calls["REST"]
    command = [asked.triton, str(HERE / "triton_peer.py"), str(rest), str(grpc), str(metrics)]
    return Peer("Triton, Python backend", command, calls, lambda: answers(url, body))


def tensorflow(asked):
    port = free_port()
    version = next(path for path in sorted(pathlib.Path(asked.model).iterdir()) if path.is_dir())
    calls = {
        "gRPC": (
            f"http://127.0.0.1:{port}/tensorflow.serving.PredictionService/Predict",
            grpc_body(asked.client, PREDICT_MESSAGE),
            GRPC_HEADERS,
        )
    }
    command = [asked.tensorflow, str(HERE / "tensorflow_peer.py"), str(version), str(port)]
    return Peer("TensorFlow + grpcio", command, calls, lambda: listens(port))


def load(protocol, call, connections, seconds, folder):
    """Requests per second, and the sorted times of requests in milliseconds."""
    url, body, headers = call
    body_file, log = folder / "body", folder / "log"
    body_file.write_bytes(body)
    log.unlink(missing_ok=True)
    command = [
        "h2load", "-t1", f"-c{connections}", "-m1", f"-D{seconds}", "--warm-up-time=1",
        f"-d{body_file}", f"--log-file={log}",
    ]
    if protocol == "REST":
        command.append("--h1")
    for header in headers:
        command += ["-H", header]
    shown = subprocess.run([*command, url], check=True, capture_output=True, text=True).stdout
    if "0 failed, 0 errored, 0 timeout" not in shown:
        sys.exit(f"requests failed:\n{shown}")
    times, first, last = [], None, 0
    for line in log.read_text().splitlines():
        start, status, took = (int(field) for field in line.split("\t")[:3])
        if status == 0:
            # Cut off by the end of the time.
            continue
        if status != 200:
            sys.exit(f"status {status} from {url}")
        first = start if first is None else min(first, start)
        last = max(last, start + took)
        times.append(took / 1000)
    return len(times) / ((last - first) / 1e6), sorted(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinglet", required=True)
    parser.add_argument("--model", required=True, help="half_plus_two, a folder of versions")
    parser.add_argument("--client", default=sys.executable, help="interpreter with the client package")
    parser.add_argument("--mlserver", help="interpreter with mlserver")
    parser.add_argument("--tensorflow", help="interpreter with tensorflow and grpcio")
    parser.add_argument("--triton", help="interpreter with nvidia-pytriton")
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", default="1,16")
    asked = parser.parse_args()
    asked.model = str(pathlib.Path(asked.model).resolve())
    with tempfile.TemporaryDirectory(prefix="kinglet-bench-") as folder:
        folder = pathlib.Path(folder)
        (folder / "mlserver").mkdir()
        peers = [kinglet(asked)]
        if asked.mlserver:
            peers.append(mlserver(asked, folder / "mlserver"))
        if asked.triton:
            peers.append(triton(asked))
        if asked.tensorflow:
            peers.append(tensorflow(asked))
        found = {}
        for _ in range(asked.rounds):
            for peer in peers:
                with peer.running():
                    for protocol, call in peer.calls.items():
                        for connections in map(int, asked.connections.split(",")):
                            rate, times = load(protocol, call, connections, asked.seconds, folder)
                            at = lambda share: times[min(len(times) - 1, int(len(times) * share))]  # noqa: B023, E731
                            found.setdefault((protocol, connections, peer.name), []).append(
                                (rate, at(0.5), at(0.99))
                            )
    print("| protocol | connections | server | requests/s | p50 ms | p99 ms |")
    print("| --- | --- | --- | --- | --- | --- |")
    for (protocol, connections, name), rounds in sorted(found.items(), key=lambda item: item[0][:2]):
        rate, middle, high = (statistics.median(column) for column in zip(*rounds))
        print(f"| {protocol} | {connections} | {name} | {rate:,.0f} | {middle:.3f} | {high:.3f} |")


if __name__ == "__main__":
    main()
