"""Calls as such: sizes, deadlines, many clients, compression, health, reflection."""

import concurrent.futures
import time

import grpc
import numpy as np
from google.protobuf import descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from harness import TIMEOUT, ClientTest, built_in_server, make_array, make_tensor, spec
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc


def request_of(values, content=True):
    request = predict_pb2.PredictRequest(model_spec=spec("half_plus_three"))
    request.inputs["x"].CopyFrom(make_tensor(np.asarray(values, np.float32), content))
    return request


class Transport(ClientTest):
    def setUp(self):
        self.server = built_in_server()

    def test_messages_of_all_sizes_both_ways(self):
        for count in (0, 1, 4095, 65_536, 1_100_000, 5_000_000):
            for content in (True, False):
                with self.subTest(count=count, content=content):
                    values = np.arange(count, dtype=np.float32)
                    answer = self.server.prediction.Predict(request_of(values, content), timeout=TIMEOUT)
                    np.testing.assert_array_equal(make_array(answer.outputs["y"]), values / 2 + 3)

    def test_a_deadline_ends_a_call(self):
        values = np.zeros(5_000_000, np.float32)
        started = time.monotonic()
        with self.assertRaises(grpc.RpcError) as caught:
            self.server.prediction.Predict(request_of(values), timeout=0.001)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        self.assertLess(time.monotonic() - started, 5)
        self.server.prediction.Predict(request_of([1.0]), timeout=TIMEOUT)

    def test_a_cancelled_call_leaves_the_channel_usable(self):
        for _ in range(20):
            self.server.prediction.Predict.future(request_of(np.zeros(100_000)), timeout=TIMEOUT).cancel()
        self.server.prediction.Predict(request_of([1.0]), timeout=TIMEOUT)

    def test_32_clients_at_once(self):
        def client(seed):
            with self.server.connect() as channel:
                stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
                for turn in range(50):
                    values = np.full(1 + (seed * 50 + turn) % 97, seed + turn, np.float32)
                    answer = stub.Predict(request_of(values, turn % 2 == 0), timeout=TIMEOUT)
                    np.testing.assert_array_equal(make_array(answer.outputs["y"]), values / 2 + 3)
            return 50

        with concurrent.futures.ThreadPoolExecutor(32) as pool:
            self.assertEqual(sum(pool.map(client, range(32))), 32 * 50)

    def test_many_calls_on_one_channel(self):
        calls = [self.server.prediction.Predict.future(request_of([turn]), timeout=TIMEOUT) for turn in range(1000)]
        for turn, call in enumerate(calls):
            self.assertEqual(make_array(call.result().outputs["y"]).item(), turn / 2 + 3)

    def test_gzip_both_ways(self):
        values = np.arange(100_000, dtype=np.float32)
        answer = self.server.prediction.Predict(
            request_of(values), timeout=TIMEOUT, compression=grpc.Compression.Gzip
        )
        np.testing.assert_array_equal(make_array(answer.outputs["y"]), values / 2 + 3)

    def test_what_is_not_served(self):
        call = self.server.channel.unary_unary("/tensorflow.serving.SessionService/SessionRun")
        self.refused(grpc.StatusCode.UNIMPLEMENTED, call, b"")
        broken = self.server.channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        self.refused(grpc.StatusCode.INTERNAL, broken, b"\x0a\xff\xff")

    def test_health(self):
        stub = health_pb2_grpc.HealthStub(self.server.channel)
        for service in ("", "PredictionService", "ModelService", "tensorflow.serving.PredictionService"):
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT)
            self.assertEqual(answer.status, health_pb2.HealthCheckResponse.SERVING)
        unknown = health_pb2.HealthCheckRequest(service="other")
        self.refused(grpc.StatusCode.NOT_FOUND, stub.Check, unknown)
        watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=TIMEOUT)
        with self.assertRaises(grpc.RpcError) as caught:
            next(watch)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.UNIMPLEMENTED)

    def test_reflection_is_enough_to_call(self):
        database = ProtoReflectionDescriptorDatabase(self.server.channel)
        services = set(database.get_services())
        self.assertLessEqual(
            {
                "tensorflow.serving.PredictionService",
                "tensorflow.serving.ModelService",
                "grpc.health.v1.Health",
            },
            services,
        )
        pool = descriptor_pool.DescriptorPool(database)
        predict = pool.FindServiceByName("tensorflow.serving.PredictionService").methods_by_name["Predict"]
        self.assertEqual(predict.input_type.full_name, "tensorflow.serving.PredictRequest")
        self.assertEqual(predict.input_type.fields_by_name["inputs"].number, 2)
        self.assertEqual(predict.output_type.fields_by_name["outputs"].number, 1)
