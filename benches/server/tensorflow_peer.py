"""TensorFlow behind a grpcio server that speaks TensorFlow Serving's Predict: MODEL_FOLDER PORT.

What somebody builds who wants the protocol without TensorFlow Serving; it also needs
`tensorflow_serving.apis`, installed without its dependencies.
"""

import concurrent.futures
import sys

import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc


class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, folder):
        # Kept, or its variables go.
        self.model = tf.saved_model.load(folder)
        self.signature = self.model.signatures["serving_default"]

    def Predict(self, request, context):
        inputs = {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
        answer = predict_pb2.PredictResponse()
        answer.model_spec.CopyFrom(request.model_spec)
        for name, value in self.signature(**inputs).items():
            answer.outputs[name].CopyFrom(tf.make_tensor_proto(value.numpy()))
        return answer


def main():
    service = Service(sys.argv[1])
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(8))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(service, server)
    server.add_insecure_port(f"127.0.0.1:{sys.argv[2]}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
