"""Each way in which TensorFlow Serving refuses a Predict call, with its code and its text."""

import grpc
from harness import MODELS, ClientTest, Server, example, make_tensor, needs_tfs_models, spec, tfs_server
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import model_pb2, predict_pb2
from test_examples import classification, regression

INVALID = grpc.StatusCode.INVALID_ARGUMENT


def tensor(dtype=types_pb2.DT_FLOAT, dims=(1,), **fields):
    made = tensor_pb2.TensorProto(dtype=dtype, **fields)
    for size in dims:
        made.tensor_shape.dim.add(size=size)
    return made


@needs_tfs_models
class Refusals(ClientTest):
    def text(self, code, model, outputs=(), **inputs):
        request = predict_pb2.PredictRequest(output_filter=outputs)
        if model is not None:
            request.model_spec.CopyFrom(spec(model))
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(value)
        return self.refused(code, tfs_server().prediction.Predict, request)

    def test_models_and_versions(self):
        one = make_tensor([[1.0]])
        missing = grpc.StatusCode.NOT_FOUND
        for model, code, text in [
            (None, INVALID, "Missing ModelSpec"),
            (model_pb2.ModelSpec(), INVALID, "ModelSpec has no name specified."),
            ("none", missing, "Servable not found for request: Latest(none)"),
            (spec("versions", version=99), missing, "Servable not found for request: Specific(versions, 99)"),
            (spec("versions", label="L"), INVALID, "Unrecognized servable version label: L"),
            ("bad", missing, "Servable not found for request: Latest(bad)"),
            (spec("versions", "X"), grpc.StatusCode.FAILED_PRECONDITION,
             'Serving signature key "X" not found.'),
        ]:
            with self.subTest(text):
                self.assertEqual(self.text(code, model, x=one), text)

    def test_aliases(self):
        one, two_in = make_tensor([1.0]), spec("multi_io", "two_in")
        for model, inputs, text in [
            ("half_plus_two", {},
             "input size does not match signature: 0!=1 len({}) != len({x}). Sent extra: {}. "
             "Missing but required: {x}."),
            ("half_plus_two", {"x": one, "z": one},
             "input size does not match signature: 2!=1 len({x,z}) != len({x}). Sent extra: {z}. "
             "Missing but required: {}."),
            (two_in, {"int_tensor": one},
             "input size does not match signature: 1!=2 len({int_tensor}) != len({int_tensor,str_tensor}). "
             "Sent extra: {}. Missing but required: {str_tensor}."),
            ("half_plus_two", {"z": one},
             "Signature input alias: x(feed name: x:0) not found in request and no default value provided. "
             "Inputs expected to be in the request {z}, or default input alias set: "),
            ("half_plus_two_tf2", {"z": one},
             "Inputs contains invalid name. Used request inputs: , request input: z"),
        ]:
            with self.subTest(text):
                self.assertEqual(self.text(INVALID, model, **inputs), text)

    def test_outputs(self):
        one = make_tensor([[1.0]])
        for outputs, text in [
            (["q"], "output tensor alias not found in signature: q Outputs expected to be in the set {y}."),
            (["y", "y"], "duplicate output tensor alias: y"),
        ]:
            with self.subTest(text):
                self.assertEqual(self.text(INVALID, "half_plus_two", outputs, x=one), text)

    def test_undecodable_tensors(self):
        for name, broken in {
            "content too short": tensor(tensor_content=b"abc"),
            "content too long": tensor(tensor_content=b"abcdefgh"),
            "negative dimension": tensor(dims=[-1], float_val=[1.0]),
            "no type": tensor(dtype=types_pb2.DT_INVALID, float_val=[1.0]),
            "a reference": tensor(dtype=types_pb2.DT_FLOAT_REF, float_val=[1.0]),
            "a resource": tensor(dtype=types_pb2.DT_RESOURCE),
            "too many elements to count": tensor(dims=[2**62, 4], float_val=[1.0]),
            "too many elements to hold": tensor(dims=[2**40], float_val=[1.0]),
        }.items():
            with self.subTest(name):
                self.assertEqual(self.text(INVALID, "half_plus_two", x=broken), "tensor parsing error: x")

    def test_element_types(self):
        words = make_tensor([b"a"])
        text = self.text(INVALID, "half_plus_two", x=words)
        self.assertEqual(text, "Expects arg[0] to be float but string is provided")

        # Declared as float, but the graph takes strings, and that counts.
        answer = tfs_server().predict(
            spec("half_plus_three", "tensorflow/serving/regress"), inputs=[example(x=2.0).SerializeToString()]
        )
        self.assert_array(answer.outputs["outputs"], [[4.0]])
        numbers = make_tensor([2.0])
        text = self.text(INVALID, spec("half_plus_three", "tensorflow/serving/regress"), inputs=numbers)
        self.assertEqual(text, "Expects arg[0] to be string but float is provided")

    def test_method_names_are_checked_on_demand(self):
        server = Server(
            "--model_name=m",
            f"--model_base_path={MODELS / 'saved_model_half_plus_two_cpu'}",
            "--enable_signature_method_name_check",
        )
        self.addCleanup(server.stop)
        server.wait_for("m")
        one = example(x=1.0)
        for call, request, text in [
            (server.prediction.Classify, classification("m", "regress_x_to_y", one),
             "Expected classification signature method_name to be tensorflow/serving/classify. "
             "Was: tensorflow/serving/regress"),
            (server.prediction.Regress, regression("m", "classify_x_to_y", one),
             "Expected regression signature method_name to be tensorflow/serving/regress. "
             "Was: tensorflow/serving/classify"),
        ]:
            self.assertEqual(self.refused(INVALID, call, request), text)
        # Predict takes them all.
        answer = server.predict(spec("m", "regress_x_to_y"), inputs=[one.SerializeToString()])
        self.assert_array(answer.outputs["outputs"], [[2.5]])

    def test_shapes_that_the_graph_refuses_leave_the_server_up(self):
        for dims in ([3, 3], [1, 1, 1, 1, 1], [0, 3, 3]):
            broken = tensor(dims=dims, float_val=[1.0])
            try:
                tfs_server().predict("classify_labels", "predict_ex", examples=broken)
            except grpc.RpcError as error:
                self.assertEqual(error.code(), INVALID)
        self.assert_array(tfs_server().predict("half_plus_two", x=[[1.0]]).outputs["y"], [[2.5]])

    def test_long_texts_are_cut(self):
        text = self.text(grpc.StatusCode.NOT_FOUND, "n" * 5000, x=make_tensor([1.0]))
        self.assertEqual(len(text), 1024 + len("...TRUNCATED"))
        self.assertTrue(text.endswith("n...TRUNCATED"))
