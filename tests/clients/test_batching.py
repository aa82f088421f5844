"""Batching as clients see it: nothing but speed, and refusals when too much waits."""

import concurrent.futures
import pathlib
import re
import shutil
import tempfile
import urllib.request

import grpc
import numpy as np
from harness import MODELS, TIMEOUT, ClientTest, Server, make_array, make_tensor, model_config, needs_tfs_models, spec
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

MODELS_SERVED = [
    ("half_plus_two", "saved_model_half_plus_two_cpu", ""),
    ("half_plus_three", "saved_model_half_plus_three", ""),
    ("dtypes", "synthetic/dtypes", ""),
]


@needs_tfs_models
class Batching(ClientTest):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="kinglet-clients-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def serve(self, parameters, *flags, models=MODELS_SERVED):
        config, file = self.folder / "models.config", self.folder / "batching"
        config.write_text(model_config(models))
        file.write_text(parameters)
        server = Server(
            f"--model_config_file={config}", "--enable_batching", f"--batching_parameters_file={file}", *flags
        )
        self.addCleanup(server.stop)
        return server.wait_for(*(name for name, *_ in models))

    def storm(self, server, clients=16, turns=40):
        """Calls of different sizes and shapes at once; each answer is checked."""

        def client(seed):
            with server.connect() as channel:
                stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
                for turn in range(turns):
                    values = np.full((1 + (seed + turn) % 5, 1), seed * turns + turn, np.float32)
                    request = predict_pb2.PredictRequest(model_spec=spec("half_plus_two"))
                    request.inputs["x"].CopyFrom(make_tensor(values, content=turn % 2 == 0))
                    answer = stub.Predict(request, timeout=TIMEOUT)
                    np.testing.assert_array_equal(make_array(answer.outputs["y"]), values / 2 + 2)
                    # Another shape, which cannot share a batch.
                    wide = np.full((2, 1 + turn % 3), seed, np.float32)
                    request = predict_pb2.PredictRequest(model_spec=spec("half_plus_three"))
                    request.inputs["x"].CopyFrom(make_tensor(wide))
                    answer = stub.Predict(request, timeout=TIMEOUT)
                    np.testing.assert_array_equal(make_array(answer.outputs["y"]), wide / 2 + 3)

        with concurrent.futures.ThreadPoolExecutor(clients) as pool:
            list(pool.map(client, range(clients)))

    def page(self, server):
        url = f"http://127.0.0.1:{server.rest_port}/metrics"
        return urllib.request.urlopen(url, timeout=TIMEOUT).read().decode()

    def test_answers_are_those_of_single_calls(self):
        for parameters in [
            "max_batch_size { value: 32 } batch_timeout_micros { value: 2000 } num_batch_threads { value: 1 } "
            "max_enqueued_batches { value: 10000 }",
            "max_batch_size { value: 8 } allowed_batch_sizes: 4 allowed_batch_sizes: 8 "
            "num_batch_threads { value: 2 } max_enqueued_batches { value: 10000 }",
            "max_batch_size { value: 16 } enable_large_batch_splitting { value: true } "
            "max_execution_batch_size { value: 2 } max_enqueued_batches { value: 10000 }",
        ]:
            with self.subTest(parameters):
                server = self.serve(parameters)
                self.storm(server)
                page = self.page(server)
                rows = re.search(r'kinglet_batch_rows_count\{model_name="half_plus_two",[^}]*\} (\d+)', page)
                self.assertGreater(int(rows[1]), 0)
                self.assertRegex(page, r"batching_session:queuing_latency_count\{[^}]*\} \d+")
                server.stop()

    def test_requests_that_proved_cheap_still_share_batches(self):
        server = self.serve(
            "num_batch_threads { value: 1 } batch_timeout_micros { value: 5000 } max_enqueued_batches { value: 10000 }"
        )
        for number in range(100):
            server.predict("half_plus_two", x=[[float(number)]])
        batches = lambda: int(  # noqa: E731
            re.search(r'kinglet_batch_rows_count\{model_name="half_plus_two",[^}]*\} (\d+)', self.page(server))[1]
        )
        # Whether two calls wait at the same time is up to the machine; answered on the network thread they never would.
        for _ in range(30):
            before = batches()
            self.storm(server, clients=16, turns=20)
            if batches() - before < 16 * 20:
                return
        self.fail("no two of 9,600 calls shared a batch")

    def test_what_has_no_common_batch_dimension_runs_alone(self):
        server = self.serve("max_batch_size { value: 4 }")
        self.assertEqual(make_array(server.predict("half_plus_three", x=7.0).outputs["y"]), 6.5)
        self.assertEqual(make_array(server.predict("dtypes", "no_inputs").outputs["y"]).shape, (1,))
        answer = server.predict("dtypes", "id_string", x=[b"a", b"bc"])
        self.assertEqual(list(answer.outputs["y"].string_val), [b"a", b"bc"])

    def test_a_request_above_the_largest_batch(self):
        server = self.serve("max_batch_size { value: 4 }")
        request = predict_pb2.PredictRequest(model_spec=spec("half_plus_two"))
        request.inputs["x"].CopyFrom(make_tensor(np.zeros((5, 1), np.float32)))
        text = self.refused(grpc.StatusCode.INVALID_ARGUMENT, server.prediction.Predict, request)
        self.assertEqual(text, "Task size 5 is larger than maximum input batch size 4")
        server.stop()
        server = self.serve("max_batch_size { value: 4 } enable_large_batch_splitting { value: true }")
        self.assert_array(server.predict("half_plus_two", x=[[1.0]] * 9).outputs["y"], [[2.5]] * 9)

    def test_a_failing_request_fails_alone(self):
        server = self.serve("num_batch_threads { value: 1 } max_batch_size { value: 64 }")

        def call(number):
            try:
                value = [b"x"] if number % 4 == 0 else np.full((1, 1), number, np.float32)
                answer = server.predict("half_plus_two", x=value)
            except grpc.RpcError as error:
                return error.code()
            return make_array(answer.outputs["y"]).item()

        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(call, range(200)))
        for number, answer in enumerate(answers):
            expected = grpc.StatusCode.INVALID_ARGUMENT if number % 4 == 0 else number / 2 + 2
            self.assertEqual(answer, expected)

    def test_parameters_of_a_version(self):
        base = self.folder / "m"
        shutil.copytree(MODELS / "saved_model_half_plus_two_cpu", base)
        (base / "00000123" / "batching_params.pbtxt").write_text("max_batch_size { value: 2 }")
        config = f'config {{ name: "m" base_path: "{base}" model_platform: "tensorflow" }}'
        (self.folder / "own.config").write_text(f"model_config_list {{ {config} }}")
        server = Server(
            f"--model_config_file={self.folder / 'own.config'}",
            "--enable_batching",
            "--enable_per_model_batching_parameters",
        )
        self.addCleanup(server.stop)
        server.wait_for("m")
        request = predict_pb2.PredictRequest(model_spec=spec("m"))
        request.inputs["x"].CopyFrom(make_tensor(np.zeros((3, 1), np.float32)))
        text = self.refused(grpc.StatusCode.INVALID_ARGUMENT, server.prediction.Predict, request)
        self.assertEqual(text, "Task size 3 is larger than maximum input batch size 2")
