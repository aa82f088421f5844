"""What a server has to stand for long: versions that change under traffic, and hundreds of reloads.

    scripts/soak.sh                    # a minute of traffic, then 200 reloads
    scripts/soak.sh --seconds 5 --reloads 20

Prints what was counted; any lost request and any growth of memory is an error. The tests run the same
code for a few seconds.
"""

import argparse
import concurrent.futures
import contextlib
import pathlib
import shutil
import statistics
import sys
import tempfile
import threading
import time

import numpy as np
from harness import MODELS, SHARED, Server, make_array, make_tensor, spec
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

HALF_PLUS_TWO = MODELS / "saved_model_half_plus_two_cpu" / "00000123"
# The largest at hand: what is not given back shows.
LARGE = [
    SHARED / "models" / "saved_model" / "effnet_lite0" / "1",
    MODELS / "synthetic" / "keras_cnn" / "1",
]
# Growth of the resident set that is noise: pages of the allocator, stacks of threads, a file that is still
# mapped. Less than one copy of the model.
TOLERATED_MIB = 16
AVAILABLE = get_model_status_pb2.ModelVersionStatus.AVAILABLE


@contextlib.contextmanager
def model_folder():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="kinglet-soak-"))
    (folder / "m").mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(folder, version, model=HALF_PLUS_TWO):
    """Makes a version appear at once, complete."""
    shutil.copytree(model, folder / "staging")
    (folder / "staging").rename(folder / "m" / str(version))


def request_of(number):
    request = predict_pb2.PredictRequest(model_spec=spec("m"))
    request.inputs["x"].CopyFrom(make_tensor([[number]]))
    return request


def swaps(seconds, clients, *flags):
    """Calls from `clients` while a version comes and one goes every second.

    Returns calls made, versions that answered and versions published. A lost or wrong answer raises.
    """
    with model_folder() as folder:
        publish(folder, 1)
        server = Server(
            "--model_name=m",
            f"--model_base_path={folder / 'm'}",
            "--file_system_poll_wait_seconds=1",
            *flags,
        )
        try:
            return _swaps(server.wait_for("m"), folder, seconds, clients)
        finally:
            server.stop()


def _swaps(server, folder, seconds, clients):
    done = threading.Event()
    seen = set()

    def client(seed):
        calls = 0
        with server.connect() as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            while not done.is_set():
                number = float(seed + calls % 1000)
                answer = stub.Predict(request_of(number), timeout=60)
                got = make_array(answer.outputs["y"]).item()
                if got != number / 2 + 2:
                    raise AssertionError(f"{number} gave {got}")
                seen.add(answer.model_spec.version.value)
                calls += 1
        return calls

    version = 1
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        running = [pool.submit(client, seed) for seed in range(clients)]
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end:
                time.sleep(1)
                version += 1
                publish(folder, version)
                if version > 2:
                    shutil.rmtree(folder / "m" / str(version - 2))
        finally:
            done.set()
        calls = [each.result() for each in running]
    if not all(calls):
        raise AssertionError("a client made no call")
    return sum(calls), seen, version


def reloads(count):
    """Replaces one large model by its copy `count` times; the resident set in MiB after each."""
    model = next(path for path in LARGE if path.is_dir())
    with model_folder() as folder:
        publish(folder, 1, model)
        server = Server("--model_name=m", f"--model_base_path={folder / 'm'}", "--file_system_poll_wait_seconds=1")
        try:
            server.wait_for("m")
            sizes = []
            for version in range(2, count + 2):
                publish(folder, version, model)
                shutil.rmtree(folder / "m" / str(version - 1))
                # SIGHUP looks at once.
                server.process.send_signal(1)
                _wait_for_only(server, version)
                _call_once(server)
                sizes.append(resident_mib(server.process.pid))
            return sizes
        finally:
            server.stop()


def _wait_for_only(server, version):
    end = time.monotonic() + 60
    while True:
        states = {each.version: each.state for each in server.status("m").model_version_status}
        alive = [each for each, state in states.items() if state != 50]
        if alive == [version] and states[version] == AVAILABLE:
            return
        if time.monotonic() > end:
            raise AssertionError(f"version {version} did not replace the one before: {states}")
        time.sleep(0.01)


def _call_once(server):
    """One call of zeros, so that plans, packed weights and arenas exist."""
    packed = server.prediction.GetModelMetadata(
        get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=spec("m"), metadata_field=["signature_def"]
        ),
        timeout=60,
    ).metadata["signature_def"]
    signatures = get_model_metadata_pb2.SignatureDefMap()
    packed.Unpack(signatures)
    inputs = signatures.signature_def["serving_default"].inputs
    zeros = {
        name: np.zeros([max(dim.size, 1) for dim in info.tensor_shape.dim], np.float32)
        for name, info in inputs.items()
    }
    server.predict("m", timeout=60, **zeros)


def resident_mib(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


def growth(sizes):
    """Growth in MiB between the first and the last third; single sizes jitter."""
    third = max(1, len(sizes) // 3)
    return statistics.median(sizes[-third:]) - statistics.median(sizes[:third])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--reloads", type=int, default=200)
    asked = parser.parse_args()
    calls, seen, version = swaps(asked.seconds, asked.clients)
    print(
        f"{asked.clients} clients, {asked.seconds:.0f} s: {calls} calls, none lost, "
        f"{len(seen)} of {version} versions answered",
        flush=True,
    )
    sizes = reloads(asked.reloads)
    grown = growth(sizes)
    print(
        f"{asked.reloads} reloads: resident set {sizes[0]:.1f} MiB after the first, "
        f"{sizes[-1]:.1f} MiB after the last, {max(sizes):.1f} MiB at most; grown by {grown:+.1f} MiB"
    )
    return grown > TOLERATED_MIB


if __name__ == "__main__":
    sys.exit(main())
