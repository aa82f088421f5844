"""Starts kinglet and speaks to it with TensorFlow Serving's published client package.

The binary is $KINGLET_BIN, else the release build, else the debug build. Models are those built
into the binary and, where $KINGLET_SHARED (default: ../shared beside the checkout) has them,
TensorFlow Serving's own test models under models/tfs.
"""

import atexit
import functools
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import unittest

import grpc
import numpy as np
from tensorflow.core.example import example_pb2
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHARED = pathlib.Path(os.environ.get("KINGLET_SHARED", ROOT.parent / "shared"))
MODELS = SHARED / "models" / "tfs"
TIMEOUT = 30
# Tests send more than the 4 MiB that a message may have by default.
LARGE_MESSAGES = "--grpc_max_receive_message_bytes=268435456"

# Model name, folder under MODELS, further fields of its configuration.
TFS_MODELS = [
    ("half_plus_two", "saved_model_half_plus_two_cpu", ""),
    ("half_plus_two_tf2", "saved_model_half_plus_two_tf2_cpu", ""),
    ("half_plus_three", "saved_model_half_plus_three", ""),
    (
        "versions",
        "saved_model_half_plus_two_2_versions",
        'model_version_policy { all {} } version_labels { key: "stable" value: 123 } '
        'version_labels { key: "canary" value: 124 }',
    ),
    ("counter", "saved_model_counter", ""),
    ("matrix", "matrix_half_plus_two", ""),
    ("dtypes", "synthetic/dtypes", ""),
    ("multi_io", "synthetic/multi_io", ""),
    ("classify_labels", "synthetic/classify_labels", ""),
    ("bad", "bad_half_plus_two", ""),
]

needs_tfs_models = unittest.skipUnless(MODELS.is_dir(), f"no models at {MODELS}")


def binary():
    target = ROOT / "target" / "x86_64-unknown-linux-gnu"
    places = [target / profile / "kinglet" for profile in ("release", "debug")]
    if "KINGLET_BIN" in os.environ:
        places = [pathlib.Path(os.environ["KINGLET_BIN"])]
    for place in places:
        if place.is_file():
            return str(place)
    raise FileNotFoundError(f"no kinglet binary at {places}; build one or set KINGLET_BIN")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    """A running kinglet with a channel to it."""

    def __init__(self, *flags):
        self.port, self.rest_port = free_port(), free_port()
        self.log = tempfile.TemporaryFile()
        command = [binary(), "serve", f"--port={self.port}", f"--rest_api_port={self.rest_port}", *flags]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=subprocess.STDOUT)
        self.channel = self.connect()
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(self.channel)
        try:
            self._wait_until_up()
        except BaseException:
            self.stop()
            raise

    def connect(self):
        unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        return grpc.insecure_channel(f"127.0.0.1:{self.port}", options=unlimited)

    def _wait_until_up(self):
        """As TensorFlow Serving's own tests do: the server is up when it misses a model."""
        end = time.monotonic() + TIMEOUT
        request = predict_pb2.PredictRequest(model_spec=model_pb2.ModelSpec(name="no_such_model"))
        while True:
            try:
                self.prediction.Predict(request, timeout=1)
            except grpc.RpcError as error:
                if "Servable" in (error.details() or ""):
                    return
                last = error
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"kinglet did not come up ({last}); it said:\n{self.output()}")
            time.sleep(0.02)

    def wait_for(self, *names, state=get_model_status_pb2.ModelVersionStatus.AVAILABLE):
        """Waits until each model has a version in `state`."""
        end = time.monotonic() + TIMEOUT
        for name in names:
            while True:
                try:
                    states = [entry.state for entry in self.status(name).model_version_status]
                except grpc.RpcError as error:
                    states = error.details()
                else:
                    if state in states:
                        break
                if time.monotonic() > end:
                    raise RuntimeError(f"{name} is {states}; kinglet said:\n{self.output()}")
                time.sleep(0.02)
        return self

    def output(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def stop(self):
        self.channel.close()
        self.process.terminate()
        try:
            self.process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()

    # Calls with little to fill in.

    def predict(self, model, signature="", outputs=(), timeout=TIMEOUT, **inputs):
        request = predict_pb2.PredictRequest(model_spec=spec(model, signature), output_filter=outputs)
        for name, value in inputs.items():
            tensor = value if isinstance(value, tensor_pb2.TensorProto) else make_tensor(value)
            request.inputs[name].CopyFrom(tensor)
        return self.prediction.Predict(request, timeout=timeout)

    def status(self, model, **version):
        request = get_model_status_pb2.GetModelStatusRequest(model_spec=spec(model, **version))
        return self.models.GetModelStatus(request, timeout=TIMEOUT)


def spec(model, signature="", version=None, label=None):
    found = model if isinstance(model, model_pb2.ModelSpec) else model_pb2.ModelSpec(name=model)
    if signature:
        found.signature_name = signature
    if version is not None:
        found.version.value = version
    if label is not None:
        found.version_label = label
    return found


@functools.cache
def tfs_server():
    """One server with TensorFlow Serving's test models, for all tests that do not change it."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="kinglet-clients-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    file = folder / "models.config"
    file.write_text(model_config(TFS_MODELS))
    server = Server(
        f"--model_config_file={file}",
        "--allow_version_labels_for_unavailable_models=true",
        "--max_num_load_retries=0",
    )
    atexit.register(server.stop)
    good = [name for name, *_ in TFS_MODELS if name != "bad"]
    return server.wait_for(*good)


@functools.cache
def built_in_server():
    """A server with the models that are in the binary."""
    server = Server(LARGE_MESSAGES)
    atexit.register(server.stop)
    return server.wait_for("half_plus_three", "iris", "digits")


def model_config(models):
    entries = "".join(
        f'config {{ name: "{name}" base_path: "{MODELS / path}" model_platform: "tensorflow" {more} }}\n'
        for name, path, more in models
    )
    return f"model_config_list {{\n{entries}}}\n"


# Tensors, without TensorFlow's make_tensor_proto.

_TYPES = {
    np.dtype(kind): (getattr(types_pb2, "DT_" + name), field)
    for kind, name, field in [
        ("float32", "FLOAT", "float_val"),
        ("float64", "DOUBLE", "double_val"),
        ("int8", "INT8", "int_val"),
        ("int16", "INT16", "int_val"),
        ("int32", "INT32", "int_val"),
        ("uint8", "UINT8", "int_val"),
        ("uint16", "UINT16", "int_val"),
        ("int64", "INT64", "int64_val"),
        ("uint32", "UINT32", "uint32_val"),
        ("uint64", "UINT64", "uint64_val"),
        ("bool", "BOOL", "bool_val"),
        ("float16", "HALF", "half_val"),
        ("complex64", "COMPLEX64", "scomplex_val"),
    ]
}


def make_tensor(value, content=False):
    """A TensorProto of an array, of bytes, or of a list of either; Python floats become float32."""
    array = np.asarray(value)
    if array.dtype.kind == "f" and not isinstance(value, (np.ndarray, np.generic)):
        array = array.astype(np.float32)
    tensor = tensor_pb2.TensorProto()
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    if array.dtype.kind in "SOU":
        tensor.dtype = types_pb2.DT_STRING
        # NumPy strips trailing zero bytes of its own strings, so only objects are exact.
        tensor.string_val.extend(bytes(each) for each in np.asarray(value, dtype=object).flatten())
        return tensor
    tensor.dtype, field = _TYPES[array.dtype]
    if content:
        tensor.tensor_content = array.tobytes()
    else:
        getattr(tensor, field).extend(_numbers(array))
    return tensor


def _numbers(array):
    if array.dtype == np.float16:
        return array.view(np.uint16).flatten().tolist()
    if array.dtype == np.complex64:
        return array.view(np.float32).flatten().tolist()
    return array.flatten().tolist()


def make_array(tensor):
    """The array of a response tensor; lists there are always complete."""
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    if tensor.dtype == types_pb2.DT_STRING:
        return np.array(list(tensor.string_val), dtype=object).reshape(shape)
    dtype, field = next((kind, field) for kind, (tag, field) in _TYPES.items() if tag == tensor.dtype)
    if tensor.tensor_content:
        return np.frombuffer(tensor.tensor_content, dtype).reshape(shape)
    values = getattr(tensor, field)
    if dtype == np.float16:
        return np.array(values, np.uint16).view(np.float16).reshape(shape)
    if dtype == np.complex64:
        return np.array(values, np.float32).view(np.complex64).reshape(shape)
    return np.array(values, dtype).reshape(shape)


def example(**features):
    """A tf.Example: bytes, floats or integers, alone or in lists."""
    made = example_pb2.Example()
    for name, values in features.items():
        values = values if isinstance(values, list) else [values]
        feature = made.features.feature[name]
        if isinstance(values[0], bytes):
            feature.bytes_list.value.extend(values)
        elif isinstance(values[0], float):
            feature.float_list.value.extend(values)
        else:
            feature.int64_list.value.extend(values)
    return made


class ClientTest(unittest.TestCase):
    """Assertions about calls."""

    def assert_array(self, tensor, expected):
        np.testing.assert_allclose(make_array(tensor), expected, rtol=1e-6)

    def refused(self, code, call, *args, **kwargs):
        """The text of the error with which a call fails."""
        with self.assertRaises(grpc.RpcError) as caught:
            call(*args, **{"timeout": TIMEOUT, **kwargs})
        self.assertEqual(caught.exception.code(), code, caught.exception.details())
        return caught.exception.details()


if __name__ == "__main__":
    sys.exit("run: .venv/bin/python -m unittest discover -s tests/clients")
