"""TLS by TensorFlow Serving's file, certificates that change while calls go on, and signed gRPC calls."""

import os
import pathlib
import shutil
import signal
import ssl
import tempfile
import time
import unittest
import urllib.request

import grpc
import numpy as np
from harness import ROOT, SHARED, TIMEOUT, Server, make_array, make_tensor, spec
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
from test_modelarts import EFFNET, EFFNET_TOML, IMAGES, Edge, package, sign, token_file

FIXTURES = ROOT / "tests" / "fixtures"
PREDICT = "/tensorflow.serving.PredictionService/Predict"


def request_of(values=(1.0,), model="half_plus_three"):
    request = predict_pb2.PredictRequest(model_spec=spec(model))
    request.inputs["x"].CopyFrom(make_tensor(np.asarray(values, np.float32)))
    return request


def call_over_tls(port, authorities, request=None, metadata=()):
    credentials = grpc.ssl_channel_credentials(authorities)
    with grpc.secure_channel(f"localhost:{port}", credentials) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        return stub.Predict(request or request_of(), metadata=metadata, timeout=TIMEOUT)


class SslConfigFile(unittest.TestCase):
    def start(self, *flags):
        quoted = {name: (FIXTURES / name).read_text().replace("\n", "\\n") for name in ("localhost.pem", "localhost.key")}
        with tempfile.NamedTemporaryFile("w", suffix=".ssl", delete=False) as file:
            file.write(f'server_key: "{quoted["localhost.key"]}"\nserver_cert: "{quoted["localhost.pem"]}"\n')
        self.addCleanup(os.unlink, file.name)
        server = TlsServer(f"--ssl_config_file={file.name}", *flags)
        self.addCleanup(server.stop)
        return server

    def rest(self, server, scheme):
        context = ssl.create_default_context(cafile=FIXTURES / "localhost.pem") if scheme == "https" else None
        url = f"{scheme}://localhost:{server.rest_port}/v1/models/half_plus_three"
        with urllib.request.urlopen(url, timeout=TIMEOUT, context=context) as answer:
            return answer.status

    def test_rest_is_secure_too(self):
        server = self.start()
        answer = call_over_tls(server.port, server.authorities)
        self.assertEqual(make_array(answer.outputs["y"]).item(), 3.5)
        self.assertEqual(self.rest(server, "https"), 200)
        with self.assertRaises(OSError):
            self.rest(server, "http")

    @unittest.skipUnless((SHARED / "models" / "tfs").is_dir(), "SKIPPED: no models of TensorFlow Serving")
    def test_to_the_letter_it_is_about_grpc_only(self):
        path = SHARED / "models" / "tfs" / "saved_model_half_plus_three"
        server = self.start("--tfs_strict_compat", "--model_name=half_plus_three", f"--model_base_path={path}")
        call_over_tls(server.port, server.authorities)
        self.assertEqual(self.rest(server, "http"), 200)
        with self.assertRaises(OSError):
            self.rest(server, "https")


class TlsServer(Server):
    """A server with the certificate of the fixtures; the harness would wait over plain gRPC."""

    authorities = (FIXTURES / "localhost.pem").read_bytes()

    def _wait_until_up(self):
        end = time.monotonic() + TIMEOUT
        while True:
            try:
                call_over_tls(self.port, self.authorities)
                return
            except grpc.RpcError as error:
                if self.process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"kinglet did not come up ({error}); it said:\n{self.output()}") from error
            time.sleep(0.05)


class Certificates(unittest.TestCase):
    def test_a_new_one_takes_over_while_calls_go_on(self):
        folder = pathlib.Path(tempfile.mkdtemp(prefix="kinglet-cert-"))
        self.addCleanup(shutil.rmtree, folder, True)

        def install(name):
            for kind in ("pem", "key"):
                shutil.copy(FIXTURES / f"{name}.{kind}", folder / f"now.{kind}.new")
                os.replace(folder / f"now.{kind}.new", folder / f"now.{kind}")

        install("localhost")
        server = TlsServer(f"--tls_cert={folder / 'now.pem'}", f"--tls_key={folder / 'now.key'}")
        self.addCleanup(server.stop)
        credentials = grpc.ssl_channel_credentials(server.authorities)
        with grpc.secure_channel(f"localhost:{server.port}", credentials) as channel:
            old = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            old.Predict(request_of(), timeout=TIMEOUT)
            install("other")
            server.process.send_signal(signal.SIGHUP)
            other = (FIXTURES / "other.pem").read_bytes()
            end = time.monotonic() + TIMEOUT
            while ssl.get_server_certificate(("localhost", server.port)).split() != other.decode().split():
                self.assertLess(time.monotonic(), end, "the certificate stays the old one")
                time.sleep(0.05)
            call_over_tls(server.port, other)
            old.Predict(request_of(), timeout=TIMEOUT)
            # One that cannot be used changes nothing.
            (folder / "now.key").write_text("no key")
            server.process.send_signal(signal.SIGHUP)
            while "the certificate stays as it is" not in server.output():
                self.assertLess(time.monotonic(), end + TIMEOUT)
                time.sleep(0.05)
            call_over_tls(server.port, other)
            old.Predict(request_of(), timeout=TIMEOUT)


class SignedGrpc(unittest.TestCase):
    """What is signed of a call is its HTTP/2 request: POST, the method's path, the body with its five bytes in front."""

    @classmethod
    def setUpClass(cls):
        cls.server = Edge(f"--auth_tokens_file={token_file('signer key:AK:right-secret')}", "--auth_failures_per_minute=0")
        cls.addClassCleanup(cls.server.stop)
        cls.authorities = (cls.server.folder / "kinglet.crt").read_bytes()

    def call(self, signed, sent=None, secret="right-secret", path=PREDICT):
        message = signed.SerializeToString()
        body = b"\0" + len(message).to_bytes(4, "big") + message
        headers = sign("POST", f"https://localhost:{self.server.port}{path}", "AK", secret, body)
        metadata = [(name.lower(), value) for name, value in headers.items()]
        try:
            answer = call_over_tls(self.server.port, self.authorities, sent or signed, metadata)
        except grpc.RpcError as error:
            return error.code().name
        return make_array(answer.outputs["y"]).tolist()

    def test_the_right_signature(self):
        self.assertEqual(self.call(request_of([1.0, 2.0])), [3.5, 4.0])
        self.assertEqual(self.call(request_of(np.zeros(100_000)))[:2], [3.0, 3.0])

    def test_everything_signed_counts(self):
        self.assertEqual(self.call(request_of(), secret="wrong"), "UNAUTHENTICATED")
        self.assertEqual(self.call(request_of([1.0]), sent=request_of([2.0])), "UNAUTHENTICATED")
        self.assertEqual(self.call(request_of(), path=PREDICT.replace("Predict", "Classify")), "UNAUTHENTICATED")


@unittest.skipUnless(EFFNET.is_dir(), f"SKIPPED: no {EFFNET}")
class GrpcImages(unittest.TestCase):
    def test_image_files_as_strings(self):
        folder = package(EFFNET, EFFNET_TOML, SHARED / "models" / "imagenet_labels.txt")
        self.addCleanup(shutil.rmtree, folder.parent, True)
        server = Edge(f"--modelarts_package={folder}", tls=False)
        self.addCleanup(server.stop)
        files = [(IMAGES / f"{name}.jpg").read_bytes() for name in ("parrot", "hot_dog")]
        request = predict_pb2.PredictRequest(model_spec=spec("default"))
        request.inputs["images"].CopyFrom(make_tensor(np.array(files, object)))
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            answer = make_array(next(iter(stub.Predict(request, timeout=TIMEOUT).outputs.values())))
            self.assertEqual(answer.shape[0], 2)
            self.assertEqual(int(answer[0].argmax()), 88)
            with np.load(EFFNET.parent / "golden.npz") as golden:
                for row, case in zip(answer, ("parrot", "hot_dog")):
                    np.testing.assert_allclose(row, golden[f"{case}/out/probs"].ravel(), atol=0.02)
            request.inputs["images"].string_val[0] = b"no image"
            with self.assertRaises(grpc.RpcError) as caught:
                stub.Predict(request, timeout=TIMEOUT)
            self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)


if __name__ == "__main__":
    unittest.main()
