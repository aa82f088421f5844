"""The documented clients of a ModelArts service, unmodified, over HTTPS with kinglet's own certificate; tokens on every
surface; and images as Pillow prepares them."""

import base64
import datetime
import hashlib
import hmac
import io
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
import unittest
import urllib.parse

import grpc
import numpy as np

from harness import SHARED, binary, free_port, make_tensor
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

try:
    import requests
    from PIL import Image
except ImportError as error:
    raise unittest.SkipTest(f"SKIPPED: {error}") from error

requests.packages.urllib3.disable_warnings()

IMAGES = SHARED / "models" / "images"
EFFNET = SHARED / "models" / "saved_model" / "effnet_lite0" / "1"
FASTESTDET = SHARED / "models" / "onnx" / "fastestdet" / "model.onnx"
ID = "39ef0dc4-6b54-4f5c-9b2a-35a7d2a1b5d2"
IRIS = '{"data":{"req_data":[{"sepal_length":3,"sepal_width":1,"petal_length":2.2,"petal_width":4}]}}'

CONFIG = {
    "model_algorithm": "image_classification",
    "model_type": "TensorFlow",
    "apis": [
        {
            "procotol": "https",
            "url": "/",
            "method": "post",
            "request": {"Content-type": "multipart/form-data", "data": {"properties": {"images": {"type": "file"}}}},
            "response": {"Content-type": "applicaton/json"},
        }
    ],
}

EFFNET_TOML = """
[input.images]
resample = "antialias"
scale = 0.0078125
mean = 0.9921875

[output]
kind = "classification"
labels = "imagenet_labels.txt"
"""

FASTESTDET_TOML = """
[input."input.1"]
preset = "fastestdet"
resample = "antialias"

[output]
kind = "detection"
head = "fastestdet"
labels = "coco.names"
score_threshold = 0.5
"""


class Edge:
    """A running kinglet, HTTPS and tokens or not."""

    def __init__(self, *flags, tls=True):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="kinglet-edge-"))
        self.port = free_port()
        self.scheme = "https" if tls else "http"
        self.url = f"{self.scheme}://127.0.0.1:{self.port}"
        self.log = tempfile.TemporaryFile()
        command = [binary(), "serve", f"--http_port={self.port}", *flags]
        if tls:
            command += ["--tls", f"--state_dir={self.folder}"]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=subprocess.STDOUT)
        end = time.monotonic() + 60
        while True:
            try:
                if requests.get(f"{self.url}/readyz", verify=False, timeout=5).status_code == 200:
                    return
            except requests.ConnectionError:
                pass
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"kinglet did not come up:\n{self.output()}")
            time.sleep(0.05)

    def output(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def post(self, path, **arguments):
        return requests.post(f"{self.url}{path}", verify=False, timeout=60, **arguments)

    def predict(self, metadata=()):
        """Calls iris over gRPC; the code's name."""
        credentials = grpc.ssl_channel_credentials((self.folder / "kinglet.crt").read_bytes())
        with grpc.secure_channel(f"localhost:{self.port}", credentials) as channel:
            request = predict_pb2.PredictRequest()
            request.model_spec.name = "iris"
            for name in ("sepal_length", "sepal_width", "petal_length", "petal_width"):
                request.inputs[name].CopyFrom(make_tensor([1.0]))
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            try:
                stub.Predict(request, metadata=metadata, timeout=30)
            except grpc.RpcError as error:
                return error.code().name
            return "OK"

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def package(model, toml, *files, config=True):
    """A package's `model` folder around a model's files."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="kinglet-package-")) / "model"
    if model.is_dir():
        shutil.copytree(model, folder)
    else:
        folder.mkdir()
        shutil.copy(model, folder)
    if config:
        (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "kinglet.toml").write_text(toml)
    for file in files:
        shutil.copy(file, folder)
    return folder


def token_file(*lines):
    file = tempfile.NamedTemporaryFile("w", suffix=".tokens", delete=False)
    with file:
        file.write("\n".join(lines) + "\n")
    return file.name


def hashed(token):
    return hashlib.sha256(token.encode()).hexdigest()


def sign(method, url, access, secret, body=b"", when=None):
    """The headers of a signed request, as the SDK makes them."""
    when = when or datetime.datetime.now(datetime.timezone.utc)
    date = when.strftime("%Y%m%dT%H%M%SZ")
    parts = urllib.parse.urlsplit(url)
    path = urllib.parse.quote(urllib.parse.unquote(parts.path), safe="/~")
    path = path if path.endswith("/") else path + "/"
    headers = {"host": parts.netloc, "x-sdk-date": date}
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    canonical = "\n".join([method, path, parts.query, lines, names, hashlib.sha256(body).hexdigest()])
    text = f"SDK-HMAC-SHA256\n{date}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    signature = hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()
    return {
        "X-Sdk-Date": date,
        "Authorization": f"SDK-HMAC-SHA256 Access={access}, SignedHeaders={names}, Signature={signature}",
    }


class DocumentedTable(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Edge(f"--auth_tokens_file={token_file('me ' + hashed('tok-en'))}")
        cls.addClassCleanup(cls.server.stop)

    def test_curl(self):
        command = ["curl", "-kv", "-d", IRIS, "-H", "X-Auth-Token:tok-en", "-X", "POST", f"{self.server.url}/v1/infers/{ID}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        answer = json.loads(done.stdout)
        row = answer["data"]["resp_data"][0]
        self.assertIn(row["label"], ("setosa", "versicolor", "virginica"), done.stderr)
        self.assertEqual(answer["meta"], {"uuid": ""})

    def test_requests(self):
        headers = {"X-Auth-Token": "tok-en", "Content-Type": "application/json"}
        body = json.loads(IRIS) | {"meta": {"uuid": "u-1"}}
        answer = self.server.post(f"/v1/infers/{ID}", headers=headers, json=body).json()
        self.assertEqual(answer["meta"], {"uuid": "u-1"})


@unittest.skipUnless(EFFNET.is_dir(), f"SKIPPED: no {EFFNET}")
class DocumentedImage(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = package(EFFNET, EFFNET_TOML, SHARED / "models" / "imagenet_labels.txt")
        cls.addClassCleanup(shutil.rmtree, cls.folder.parent, True)
        cls.server = Edge(
            f"--modelarts_package={cls.folder}", f"--auth_tokens_file={token_file('me ' + hashed('tok-en'))}"
        )
        cls.addClassCleanup(cls.server.stop)

    def assert_parrot(self, answer):
        self.assertEqual(answer["predicted_label"], "macaw", answer)
        self.assertEqual(len(answer["scores"]), 5)
        self.assertAlmostEqual(answer["scores"][0][1], 0.8525, delta=0.01)

    def test_curl(self):
        url = f"{self.server.url}/v1/infers/{ID}"
        command = ["curl", "-kv", "-F", f"images=@{IMAGES / 'parrot.jpg'}", "-H", "X-Auth-Token:tok-en", "-X", "POST", url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        self.assert_parrot(json.loads(done.stdout))

    def test_requests(self):
        # The documented sample; "multipart/form-data" is what it says of the part.
        url, file_path = f"{self.server.url}/v1/infers/{ID}", str(IMAGES / "parrot.jpg")
        headers = {"X-Auth-Token": "tok-en"}
        files = {"images": (file_path, open(file_path, "rb"), "multipart/form-data")}
        resp = requests.post(url, headers=headers, files=files, verify=False)
        self.assert_parrot(resp.json())
        files["images"][1].close()

    def test_base64_and_rest(self):
        text = base64.b64encode((IMAGES / "parrot.jpg").read_bytes()).decode()
        headers = {"X-Auth-Token": "tok-en"}
        self.assert_parrot(self.server.post("/", headers=headers, json={"images": text}).json())
        rest = self.server.post("/v1/models/default:predict", headers=headers, json={"instances": [{"b64": text}]})
        self.assertEqual(int(np.argmax(rest.json()["predictions"][0])), 88, rest.text[:200])

    def test_recorded_answers(self):
        with np.load(EFFNET.parent / "golden.npz") as golden:
            for case in ("parrot", "hot_dog"):
                text = base64.b64encode((IMAGES / f"{case}.jpg").read_bytes()).decode()
                rest = self.server.post(
                    "/v1/models/default:predict",
                    headers={"X-Auth-Token": "tok-en"},
                    json={"inputs": {"b64": text}},
                )
                np.testing.assert_allclose(rest.json()["outputs"], golden[f"{case}/out/probs"], atol=0.02)


@unittest.skipUnless(FASTESTDET.is_file(), f"SKIPPED: no {FASTESTDET}")
class Detector(unittest.TestCase):
    def test_objects_with_boxes(self):
        folder = package(FASTESTDET, FASTESTDET_TOML, SHARED / "models" / "coco.names")
        self.addCleanup(shutil.rmtree, folder.parent, True)
        if subprocess.run([binary(), "inspect", str(folder)], capture_output=True).returncode:
            self.skipTest("SKIPPED: this build does not read ONNX models")
        server = Edge(f"--modelarts_package={folder}", tls=False)
        self.addCleanup(server.stop)
        with open(IMAGES / "pets.jpg", "rb") as photo:
            answer = server.post("/", files={"images": photo}).json()
        found = set(answer["detection_classes"])
        self.assertTrue({"dog", "cat"} & found, answer)
        width, height = Image.open(IMAGES / "pets.jpg").size
        for top, left, bottom, right in answer["detection_boxes"]:
            self.assertTrue(0 <= top < bottom <= height and 0 <= left < right <= width, answer)
        self.assertEqual(answer["detection_scores"], sorted(answer["detection_scores"], reverse=True))


class AuthMatrix(unittest.TestCase):
    """Every scheme, right, wrong, missing and expired, on every surface; nothing of it in the log."""

    SECRETS = ("right-token-1", "wrong-token-2", "expired-token-3", "right-secret-4", "expired-secret-5", "wrong-secret-6")

    @classmethod
    def setUpClass(cls):
        cls.tokens = token_file(
            f"good {hashed('right-token-1')}",
            f"old {hashed('expired-token-3')} 2020-01-01",
            "signer key:AK:right-secret-4",
            "oldsigner key:OLD:expired-secret-5 2020-01-01",
            f"scoped {hashed('scoped-token-7')} - digits",
        )
        cls.server = Edge(
            f"--auth_tokens_file={cls.tokens}",
            "--auth_failures_per_minute=0",
            "--modelarts_service=svc=iris",
            "--log_level=trace",
        )
        cls.addClassCleanup(cls.server.stop)

    def plain(self, kind):
        return {"right": "right-token-1", "wrong": "wrong-token-2", "expired": "expired-token-3"}[kind]

    def headers(self, scheme, kind, url, body):
        if kind == "missing":
            return {}
        if scheme == "Signature":
            access, secret = {
                "right": ("AK", "right-secret-4"),
                "wrong": ("AK", "wrong-secret-6"),
                "expired": ("OLD", "expired-secret-5"),
            }[kind]
            return sign("POST", url, access, secret, body)
        if scheme == "Bearer":
            return {"Authorization": f"Bearer {self.plain(kind)}"}
        return {scheme: self.plain(kind)}

    def test_matrix(self):
        surfaces = {
            "REST": ("/v1/models/half_plus_three:predict", b'{"instances":[1]}'),
            "ModelArts": ("/v1/infers/svc", IRIS.encode()),
        }
        for scheme in ("X-Auth-Token", "X-Apig-AppCode", "apikey", "Bearer", "Signature"):
            for kind in ("right", "wrong", "missing", "expired"):
                expected = 200 if kind == "right" else 401
                for surface, (path, body) in surfaces.items():
                    with self.subTest(scheme=scheme, kind=kind, surface=surface):
                        headers = self.headers(scheme, kind, self.server.url + path, body)
                        answer = self.server.post(path, data=body, headers=headers)
                        self.assertEqual(answer.status_code, expected, answer.text)
                        if expected == 401:
                            self.assertIn("error_code" if surface == "ModelArts" else "error", answer.json())
                if scheme != "Signature":
                    with self.subTest(scheme=scheme, kind=kind, surface="gRPC"):
                        metadata = [(key.lower(), value) for key, value in self.headers(scheme, kind, "", b"").items()]
                        self.assertEqual(self.server.predict(metadata), "OK" if kind == "right" else "UNAUTHENTICATED")
        old = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(minutes=20)
        path, body = surfaces["ModelArts"]
        headers = sign("POST", self.server.url + path, "AK", "right-secret-4", body, old)
        self.assertEqual(self.server.post(path, data=body, headers=headers).json()["error_code"], "ModelArts.0202")
        log = self.server.output()
        for secret in (*self.SECRETS, "scoped-token-7", *map(hashed, self.SECRETS)):
            self.assertNotIn(secret, log)

    def test_scopes_and_open_paths(self):
        scoped = {"apikey": "scoped-token-7"}
        self.assertEqual(self.server.post("/v1/infers/svc", data=IRIS, headers=scoped).status_code, 403)
        self.assertEqual(self.server.predict([("apikey", "scoped-token-7")]), "PERMISSION_DENIED")
        for path, status in (("/healthz", 200), ("/health", 200), ("/metrics", 401), ("/v1/models", 401)):
            answer = requests.get(self.server.url + path, verify=False, timeout=30)
            self.assertEqual(answer.status_code, status, path)

    def test_large_bodies_of_strangers(self):
        body = b"x" * (1 << 20)
        try:
            answer = self.server.post("/v1/infers/svc", data=body, headers={"apikey": "wrong-token-2"})
        except requests.ConnectionError:
            return  # It was cut off while it still sent.
        self.assertEqual(answer.status_code, 401)


class Start(unittest.TestCase):
    def test_reload_and_limits(self):
        tokens = token_file("one plain:abc")
        server = Edge(f"--auth_tokens_file={tokens}", "--auth_failures_per_minute=3")
        self.addCleanup(server.stop)
        self.assertIn("as they are", server.output(), "tokens that stand in the file are warned of")
        call = lambda token: server.post("/v1/models/half_plus_three:predict", json={"instances": [1]}, headers={"apikey": token})
        with requests.Session() as session:
            # A connection that exists goes on while certificate and tokens are exchanged.
            session.get(f"{server.url}/readyz", verify=False, timeout=30)
            pathlib.Path(tokens).write_text("two plain:xyz\n")
            os.kill(server.process.pid, signal.SIGHUP)
            end = time.monotonic() + 20
            while call("xyz").status_code != 200:
                self.assertLess(time.monotonic(), end)
                if "try again" in call("xyz").text:
                    break
                time.sleep(0.2)
            self.assertEqual(session.get(f"{server.url}/readyz", verify=False, timeout=30).status_code, 200)
        statuses = [call("guess").status_code for _ in range(5)]
        self.assertEqual(statuses[-1], 429, statuses)

    def test_other_machines_need_tokens(self):
        command = [binary(), "serve", f"--http_port={free_port()}", "--address=0.0.0.0"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("--auth_tokens_file", done.stderr)

    def test_a_new_token_lets_in(self):
        done = subprocess.run([binary(), "token", "new", "--name=cam"], capture_output=True, text=True, check=True)
        token, line = done.stdout.splitlines()[0].removeprefix("token: "), done.stdout.splitlines()[-1]
        server = Edge(f"--auth_tokens_file={token_file(line)}")
        self.addCleanup(server.stop)
        answer = server.post("/v1/models/half_plus_three:predict", json={"instances": [1]}, headers={"Authorization": f"Bearer {token}"})
        self.assertEqual(answer.status_code, 200, answer.text)


class AsPillowDoes(unittest.TestCase):
    """Preparation equals Pillow's within one grey level on average."""

    SIZE = (48, 64)

    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="kinglet-mirror-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder, True)
        height, width = cls.SIZE
        for resample in ("bilinear", "antialias", "bicubic", "nearest"):
            model = cls.folder / resample / "1"
            model.mkdir(parents=True)
            signature = {
                "inputs": {"x": {"dtype": "float", "shape": [None, height, width, 3]}},
                "outputs": {"y": {"dtype": "float"}},
                "nodes": [{"op": "Mul", "inputs": ["x", "one"], "outputs": ["y"]}],
            }
            text = {
                "format": "kinglet/1",
                "constants": {"one": {"dtype": "float", "data": 1}},
                "signatures": {"serving_default": signature},
            }
            (model / "model.json").write_text(json.dumps(text))
            (model / "kinglet.toml").write_text(f'[input.x]\nresample = "{resample}"\n')
        cls.server = Edge(f"--models_dir={cls.folder}", tls=False)
        cls.addClassCleanup(cls.server.stop)

    def prepared(self, file, resample):
        answer = self.server.post(f"/v1/infers/{resample}", files={"x": file}).json()
        return np.asarray(answer["y"][0])

    def assert_alike(self, file, resample, expected, limit=1.0):
        difference = np.abs(self.prepared(file, resample) - np.asarray(expected, dtype=float)).mean()
        self.assertLess(difference, limit, f"{resample}: {difference} grey levels on average")

    @staticmethod
    def picture(width=331, height=247):
        y, x = np.mgrid[0:height, 0:width]
        waves = [np.sin(x / 7) * 60, np.cos(y / 9) * 60, np.sin((x + y) / 13) * 60]
        noise = np.random.default_rng(1).normal(0, 8, (height, width, 3))
        return Image.fromarray(np.clip(np.stack(waves, -1) + 128 + noise, 0, 255).astype(np.uint8))

    def test_filters(self):
        picture = self.picture()
        data = io.BytesIO()
        picture.save(data, "PNG")
        height, width = self.SIZE
        corners = (0, 0, *picture.size)
        flat = picture.transform((width, height), Image.Transform.EXTENT, corners, Image.Resampling.BILINEAR)
        self.assert_alike(data.getvalue(), "bilinear", flat)
        for resample, theirs in (("antialias", "BILINEAR"), ("bicubic", "BICUBIC"), ("nearest", "NEAREST")):
            expected = picture.resize((width, height), Image.Resampling[theirs])
            self.assert_alike(data.getvalue(), resample, expected)

    def test_formats(self):
        picture, size = self.picture(), (self.SIZE[1], self.SIZE[0])
        ways = [
            ("JPEG", {"quality": 90}),
            ("JPEG", {"quality": 90, "progressive": True}),
            ("JPEG", {"quality": 90, "subsampling": 0}),
            ("PNG", {}),
            ("BMP", {}),
            ("WEBP", {"quality": 90}),
            ("WEBP", {"lossless": True}),
            ("GIF", {}),
        ]
        for form, options in ways:
            for mode in ("RGB", "L", "P"):
                if mode == "P" and form in ("JPEG", "WEBP"):
                    continue
                with self.subTest(form=form, mode=mode, **options):
                    data = io.BytesIO()
                    picture.convert(mode).save(data, form, **options)
                    expected = Image.open(io.BytesIO(data.getvalue())).convert("RGB").resize(size, Image.Resampling.BILINEAR)
                    self.assert_alike(data.getvalue(), "antialias", expected)

    def test_orientations(self):
        from PIL import ImageOps

        picture, size = self.picture(), (self.SIZE[1], self.SIZE[0])
        for orientation in range(1, 9):
            with self.subTest(orientation=orientation):
                data = io.BytesIO()
                exif = Image.Exif()
                exif[0x0112] = orientation
                picture.save(data, "JPEG", quality=90, exif=exif)
                upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data.getvalue())))
                self.assert_alike(data.getvalue(), "antialias", upright.convert("RGB").resize(size, Image.Resampling.BILINEAR))

    def test_bombs(self):
        # 30000 x 30000 pixels in a few bytes.
        data = io.BytesIO()
        Image.new("1", (30000, 30000)).save(data, "PNG")
        answer = self.server.post("/v1/infers/bilinear", files={"x": data.getvalue()})
        self.assertEqual(answer.status_code, 400)
        self.assertIn("too large", answer.json()["msg"])


if __name__ == "__main__":
    unittest.main()
