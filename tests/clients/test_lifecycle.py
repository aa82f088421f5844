"""The life of the process: what a service manager hears, signals, certificates, sockets that were handed over."""

import ctypes
import errno
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from harness import ROOT, TIMEOUT, ClientTest, binary, free_port, make_tensor, spec
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

FIXTURES = ROOT / "tests" / "fixtures"
PREDICT = "/v1/models/half_plus_three:predict"
# Passes the socket that is its first argument on as file descriptor 3, as sd_listen_fds(3) wants it.
HAND_OVER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES="rest")
os.execv(sys.argv[2], sys.argv[2:])
"""


class Manager:
    """The socket of a service manager, and what came through it."""

    def __init__(self, folder):
        self.path = str(folder / "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)

    def next(self, wanted, timeout=TIMEOUT):
        """The next message with a line that starts with `wanted`, as a dict."""
        end = time.monotonic() + timeout
        while (left := end - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                text = self.socket.recv(4096).decode()
            except TimeoutError:
                break
            message = dict(line.split("=", 1) for line in text.splitlines())
            if wanted in message:
                return message
        return None

    def drop_what_waits(self):
        self.socket.setblocking(False)
        try:
            while True:
                self.socket.recv(4096)
        except BlockingIOError:
            pass


class Life(ClientTest):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="kinglet-life-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.manager = Manager(self.folder)
        self.addCleanup(self.manager.socket.close)
        self.started = 0

    def start(self, *flags, listening=None, env=(), ready=True, stderr=None):
        """A server; `listening` is a socket for it, else self.rest and self.grpc are its ports."""
        self.rest, self.grpc = (listening.getsockname()[1], 0) if listening else (free_port(), free_port())
        command = [binary(), "serve", *flags]
        options = {}
        if listening:
            command = [sys.executable, "-c", HAND_OVER, str(listening.fileno()), *command]
            options["pass_fds"] = [listening.fileno()]
        else:
            command += [f"--port={self.grpc}", f"--rest_api_port={self.rest}"]
        self.started += 1
        self.log = self.folder / f"log{self.started}"
        environment = {**os.environ, "NOTIFY_SOCKET": self.manager.path, **dict(env)}
        with self.log.open("wb") as log:
            process = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=stderr or log, env=environment, **options
            )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        if ready and self.manager.next("READY") is None:
            self.fail(f"the server does not get ready:\n{self.output()}")
        return process

    def output(self):
        return self.log.read_text(errors="replace")

    def until(self, condition, what):
        end = time.monotonic() + TIMEOUT
        while not condition():
            self.assertLess(time.monotonic(), end, f"{what}; it said:\n{self.output()}")
            time.sleep(0.02)

    def get(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.rest, timeout=TIMEOUT)
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()

    def reload(self, process):
        process.send_signal(signal.SIGHUP)
        self.assertIsNotNone(self.manager.next("READY"), self.output())

    def ended(self, process):
        self.assertEqual(process.wait(TIMEOUT), 0, self.output())


class ServiceManager(Life):
    def test_what_it_hears_from_start_to_end(self):
        watchdog = {"WATCHDOG_USEC": "400000"}
        process = self.start(env=watchdog, ready=False)
        self.assertEqual(self.manager.next("READY")["STATUS"], "3 models answer")
        self.assertEqual(self.get("/readyz")[0], 200)
        beats = [time.monotonic() for _ in range(4) if self.manager.next("WATCHDOG")]
        self.assertEqual(len(beats), 4)
        self.manager.drop_what_waits()
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        process.send_signal(signal.SIGHUP)
        stamp = int(self.manager.next("RELOADING")["MONOTONIC_USEC"])
        self.assertTrue(before <= stamp <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000)
        self.assertIsNotNone(self.manager.next("READY"))
        process.send_signal(signal.SIGTERM)
        self.assertIsNotNone(self.manager.next("STOPPING"))
        self.ended(process)

    def test_a_watchdog_of_another_process_is_not_served(self):
        self.start(env={"WATCHDOG_USEC": "100000", "WATCHDOG_PID": "1"})
        self.assertIsNone(self.manager.next("WATCHDOG", timeout=0.5))

    def test_the_heartbeat_stops_when_inference_is_stuck(self):
        process = self.start("--workers=3", env={"WATCHDOG_USEC": "400000"})
        self.assertIsNotNone(self.manager.next("WATCHDOG"))
        with Stuck(process.pid, "worker-") as stuck:
            self.assertEqual(stuck.threads, 3)
            self.manager.drop_what_waits()
            # One that was sent before may still come.
            self.manager.next("WATCHDOG", timeout=0.3)
            self.assertIsNone(self.manager.next("WATCHDOG", timeout=1.5), "no worker works")
            self.assertEqual(self.get("/healthz")[0], 200, "the loop works: only the heartbeat tells")
            self.assertIn("no sign of life", self.output())
        self.assertIsNotNone(self.manager.next("WATCHDOG"), "it goes on when they do")

    def test_a_model_is_loaded_before_ready(self):
        config = self.folder / "models.config"
        config.write_text("model_config_list {}")
        process = self.start(f"--model_config_file={config}", "--max_num_load_retries=0", ready=False)
        self.assertEqual(self.manager.next("READY")["STATUS"], "no model answers")
        shutil.copytree(ROOT / "weights" / "iris" / "1", self.folder / "iris" / "1")
        entry = f'config {{ name: "iris" base_path: "{self.folder}/iris" model_platform: "tensorflow" }}'
        config.write_text(f"model_config_list {{ {entry} }}")
        process.send_signal(signal.SIGHUP)
        self.assertEqual(self.manager.next("READY")["STATUS"], "1 model answers", self.output())
        # A new version answers when the reload is over, too.
        shutil.copytree(self.folder / "iris" / "1", self.folder / "tmp")
        (self.folder / "tmp").rename(self.folder / "iris" / "2")
        process.send_signal(signal.SIGHUP)
        self.assertIsNotNone(self.manager.next("READY"))
        self.assertIn('"version": "2"', self.get("/v1/models/iris")[1])
        # A mistake changes nothing, and ends the reload all the same.
        config.write_text("model_config_list { confg {} }")
        process.send_signal(signal.SIGHUP)
        self.assertEqual(self.manager.next("READY")["STATUS"], "1 model answers")
        self.assertIn("the model configuration stays as it is", self.output())

    def test_credentials_are_found(self):
        folder = self.folder / "credentials"
        folder.mkdir()
        (folder / "tokens").write_text("camera plain:secret\n")
        shutil.copy(FIXTURES / "localhost.pem", folder / "tls.crt")
        shutil.copy(FIXTURES / "localhost.key", folder / "tls.key")
        self.start(env={"CREDENTIALS_DIRECTORY": str(folder)})
        trusted = ssl.create_default_context(cafile=FIXTURES / "localhost.pem")
        connection = http.client.HTTPSConnection("localhost", self.rest, context=trusted, timeout=TIMEOUT)
        for headers, status in (({}, 401), ({"Authorization": "Bearer secret"}, 200)):
            connection.request("POST", PREDICT, '{"instances": [1.0]}', headers)
            answer = connection.getresponse()
            self.assertEqual((answer.status, bool(answer.read())), (status, True))

    def test_priorities_for_the_journal(self):
        with (self.folder / "journal").open("wb") as journal:
            status = os.fstat(journal.fileno())
            named = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
            process = self.start("--flush_filesystem_caches=false", env=named, stderr=journal)
            process.terminate()
            self.ended(process)
        lines = (self.folder / "journal").read_text().splitlines()
        self.assertTrue(lines and all(re.match("<[3-7]>[a-z]+: ", line) for line in lines), lines)
        self.assertTrue(any(line.startswith("<4>") for line in lines), lines)
        # Inherited from a service that is not this one.
        process = self.start(env={"JOURNAL_STREAM": "1:2"})
        self.assertRegex(self.output(), r"^\d{4}-\d\d-\d\dT")


class Stop(Life):
    def test_health_checks_fail_before_the_server_goes(self):
        process = self.start("--drain_delay=2")
        with grpc.insecure_channel(f"127.0.0.1:{self.grpc}") as channel:
            health = health_pb2_grpc.HealthStub(channel)
            check = lambda: health.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT).status  # noqa: E731
            self.assertEqual(check(), health_pb2.HealthCheckResponse.SERVING)
            process.terminate()
            self.until(lambda: self.get("/readyz")[0] == 503, "not ready")
            self.assertEqual(check(), health_pb2.HealthCheckResponse.NOT_SERVING)
            # Whoever has not noticed is answered.
            prediction = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            prediction.Predict(predict_request(), timeout=TIMEOUT)
            self.assertEqual(self.get("/v1/models/iris")[0], 200)
            self.ended(process)

    def test_requests_in_flight_are_finished(self):
        process = self.start()
        body = json.dumps({"instances": [1.0] * 1000}).encode()
        head = f"POST {PREDICT} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        with socket.create_connection(("127.0.0.1", self.rest), TIMEOUT) as half:
            half.sendall(head + body[:100])
            time.sleep(0.1)
            process.terminate()
            self.until(lambda: refused(self.rest), "nobody listens")
            time.sleep(0.7)
            self.assertIsNone(process.poll())
            half.sendall(body[100:])
            answer = http.client.HTTPResponse(half)
            answer.begin()
            self.assertEqual((answer.status, answer.headers["Connection"]), (200, "close"))
            self.assertEqual(len(json.loads(answer.read())["predictions"]), 1000)
        self.ended(process)

    def test_a_second_signal_ends_at_once(self):
        process = self.start("--drain_timeout=30", "--drain_delay=30")
        with socket.create_connection(("127.0.0.1", self.rest), TIMEOUT) as half:
            half.sendall(b"POST / HTTP/1.1\r\n")
            process.terminate()
            self.assertIsNotNone(self.manager.next("STOPPING"))
            time.sleep(0.7)
            self.assertIsNone(process.poll())
            started = time.monotonic()
            process.terminate()
            self.ended(process)
            self.assertLess(time.monotonic() - started, 10)


class Certificates(Life):
    def seen(self):
        """The certificate that a new connection gets."""
        with socket.create_connection(("127.0.0.1", self.rest), TIMEOUT) as plain:
            anybody = ssl._create_unverified_context()
            with anybody.wrap_socket(plain) as secure:
                return secure.getpeercert(binary_form=True)

    def install(self, certificate, key):
        for source, target in ((certificate, "tls.crt"), (key, "tls.key")):
            new = self.folder / "new"
            shutil.copy(FIXTURES / source, new)
            new.replace(self.folder / target)

    def test_a_certificate_is_swapped_and_a_broken_one_is_not(self):
        local, other = (
            ssl.PEM_cert_to_DER_cert((FIXTURES / name).read_text()) for name in ("localhost.pem", "other.pem")
        )
        self.install("localhost.pem", "localhost.key")
        process = self.start(f"--tls_cert={self.folder}/tls.crt", f"--tls_key={self.folder}/tls.key")
        self.assertEqual(self.seen(), local)
        trusted = ssl.create_default_context(cafile=FIXTURES / "localhost.pem")
        kept = http.client.HTTPSConnection("localhost", self.rest, context=trusted, timeout=TIMEOUT)

        def call():
            kept.request("GET", "/v1/models/iris")
            answer = kept.getresponse()
            self.assertEqual((answer.status, bool(answer.read())), (200, True))

        call()
        connected = kept.sock
        self.install("other.pem", "other.key")
        self.assertEqual(self.seen(), local, "not before the signal")
        self.reload(process)
        self.assertEqual(self.seen(), other)
        call()
        self.assertIs(kept.sock, connected, "connections that are open stay")
        # Each of these is a mistake; the certificate in use stays.
        for mistake in (
            lambda: self.install("localhost.pem", "other.key"),
            lambda: (self.folder / "tls.crt").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n"),
            lambda: (self.folder / "tls.crt").unlink(),
        ):
            mistake()
            self.reload(process)
            self.assertEqual(self.seen(), other)
        self.assertEqual(self.output().count("the certificate stays as it is"), 3, self.output())
        self.install("localhost.pem", "localhost.key")
        self.reload(process)
        self.assertEqual(self.seen(), local)

    def test_tokens_are_swapped_and_broken_ones_are_not(self):
        tokens = self.folder / "tokens"
        tokens.write_text("one plain:first\n")
        process = self.start(f"--auth_tokens_file={tokens}")

        def status(token):
            connection = http.client.HTTPConnection("127.0.0.1", self.rest, timeout=TIMEOUT)
            connection.request("GET", "/v1/models/iris", headers={"Authorization": f"Bearer {token}"})
            return connection.getresponse().status

        self.assertEqual((status("first"), status("second")), (200, 401))
        tokens.write_text("two plain:second\n")
        self.reload(process)
        self.assertEqual((status("first"), status("second")), (401, 200))
        tokens.write_text("three third\n")
        self.reload(process)
        self.assertEqual((status("first"), status("second")), (401, 200))
        self.assertIn("the tokens stay as they are", self.output())


class Models(Life):
    def predicts(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.rest, timeout=TIMEOUT)
        flower = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}
        connection.request("POST", "/v1/models/iris:predict", json.dumps({"instances": [flower]}))
        answer = connection.getresponse()
        self.assertEqual((answer.status, b"setosa" in answer.read()), (200, True))

    def test_whatever_is_wrong_the_old_model_stays(self):
        models = self.folder / "iris"
        shutil.copytree(ROOT / "weights" / "iris" / "1", models / "1")
        config = self.folder / "models.config"
        good = f'model_config_list {{ config {{ name: "iris" base_path: "{models}" model_platform: "tensorflow" }} }}'
        config.write_text(good)
        process = self.start(f"--model_config_file={config}", "--max_num_load_retries=0")
        self.predicts()
        for mistake in (
            lambda: config.write_text("model_config_list { confg {} }"),
            lambda: config.write_text(good.replace(str(models), "relative")),
            lambda: config.unlink(),
        ):
            mistake()
            self.reload(process)
            self.predicts()
        self.assertEqual(self.output().count("the model configuration stays as it is"), 3, self.output())
        config.write_text(good)
        # A new version that is damaged does not take the old one's place.
        for damaged in ("model.json", "model.safetensors"):
            shutil.copytree(ROOT / "weights" / "iris" / "1", self.folder / "new")
            (self.folder / "new" / damaged).write_bytes(b"damaged")
            version = 2 + len(list(models.glob("[2-9]")))
            (self.folder / "new").rename(models / str(version))
            self.reload(process)
            self.predicts()
            self.assertIn('"state": "END"', self.get(f"/v1/models/iris/versions/{version}")[1])
            self.assertIn('"state": "AVAILABLE"', self.get("/v1/models/iris/versions/1")[1])


class Sockets(Life):
    def test_restarts_and_reloads_lose_nothing(self):
        with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
            process = self.start(listening=listening)
            self.assertIn("(socket `rest`)", self.output())
            load = Load(self.rest, clients=32)
            try:
                for _ in range(3):
                    load.wait_for_more()
                    self.reload(process)
                    load.wait_for_more()
                    process.terminate()
                    self.ended(process)
                    # Connections wait in the socket meanwhile.
                    time.sleep(0.1)
                    process = self.start(listening=listening)
                load.wait_for_more()
            finally:
                answered, lost = load.stop()
            self.assertEqual(lost, [], f"of {answered + len(lost)}")

    def test_sockets_for_other_machines_need_tokens(self):
        with socket.create_server(("0.0.0.0", 0)) as listening:
            process = self.start(listening=listening, ready=False)
            self.assertEqual(process.wait(TIMEOUT), 255)
            self.assertIn("lets every machine of the network in", self.output())


class Load:
    """Clients over HTTP/1.1, on connections that are kept and on new ones, and over gRPC; half of each."""

    def __init__(self, port, clients):
        self.port = port
        self.counts, self.lost = [0] * clients, []
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=[number]) for number in range(clients)]
        for thread in self.threads:
            thread.start()

    def run(self, number):
        call = (self.kept, self.fresh, self.rpc, self.rpc)[number % 4]()
        while not self.stopping.is_set():
            try:
                next(call)
                self.counts[number] += 1
            except Exception as error:  # noqa: BLE001 - whatever a client sees is a loss
                self.lost.append(repr(error))
                return

    def kept(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)
        while True:
            yield self.post(connection)

    def fresh(self):
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)
            yield self.post(connection)
            connection.close()

    @staticmethod
    def post(connection):
        connection.request("POST", PREDICT, '{"instances": [1.0]}')
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200 and b"3.5" in body, (answer.status, body)

    def rpc(self):
        with grpc.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            while True:
                yield stub.Predict(predict_request(), timeout=TIMEOUT)

    def wait_for_more(self):
        wanted = [count + 20 for count in self.counts]
        end = time.monotonic() + TIMEOUT
        while any(count < want for count, want in zip(self.counts, wanted)) and not self.lost:
            if time.monotonic() > end:
                raise TimeoutError(f"{self.counts} do not reach {wanted}")
            time.sleep(0.01)

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join()
        return sum(self.counts), self.lost


class Stuck:
    """Holds the threads of a process whose names start so, as a debugger does; the others run on."""

    SEIZE, INTERRUPT, DETACH, WALL = 0x4206, 0x4207, 17, 0x40000000

    def __init__(self, pid, name):
        folder = pathlib.Path(f"/proc/{pid}/task")
        named = [int(task.name) for task in folder.iterdir() if (task / "comm").read_text().startswith(name)]
        self.tasks, self.threads = named, len(named)
        self.libc = ctypes.CDLL(None, use_errno=True)

    def ptrace(self, request, task):
        arguments = (ctypes.c_long(request), ctypes.c_long(task), ctypes.c_void_p(), ctypes.c_void_p())
        if self.libc.ptrace(*arguments) == -1:
            error = ctypes.get_errno()
            if error in (errno.EPERM, errno.ENOSYS):
                raise unittest.SkipTest("SKIPPED: processes may not be traced here")
            raise OSError(error, os.strerror(error))

    def __enter__(self):
        for task in self.tasks:
            self.ptrace(self.SEIZE, task)
            self.ptrace(self.INTERRUPT, task)
            os.waitpid(task, self.WALL)
        return self

    def __exit__(self, *_):
        for task in self.tasks:
            self.ptrace(self.DETACH, task)


def predict_request():
    request = predict_pb2.PredictRequest(model_spec=spec("half_plus_three"))
    request.inputs["x"].CopyFrom(make_tensor([1.0]))
    return request


def refused(port):
    try:
        socket.create_connection(("127.0.0.1", port), TIMEOUT).close()
    except ConnectionRefusedError:
        return True
    return False


if __name__ == "__main__":
    unittest.main()
