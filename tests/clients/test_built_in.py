"""The models that a kinglet without any flag serves."""

import numpy as np
from harness import ClientTest, built_in_server, example, make_array, spec
from tensorflow_serving.apis import get_model_metadata_pb2, regression_pb2


def inputs_of(model):
    request = get_model_metadata_pb2.GetModelMetadataRequest(
        model_spec=spec(model), metadata_field=["signature_def"]
    )
    answer = built_in_server().prediction.GetModelMetadata(request, timeout=10)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    answer.metadata["signature_def"].Unpack(signatures)
    return signatures.signature_def["serving_default"].inputs


class BuiltIn(ClientTest):
    def test_half_plus_three_halves_and_adds_three(self):
        answer = built_in_server().predict("half_plus_three", x=[1.0, 2.0, 5.0])
        self.assert_array(answer.outputs["y"], [3.5, 4.0, 5.5])

    def test_half_plus_three_regresses_examples(self):
        request = regression_pb2.RegressionRequest(
            model_spec=spec("half_plus_three", "tensorflow/serving/regress")
        )
        request.input.example_list.examples.extend([example(x=1.0), example(x=2.0)])
        answer = built_in_server().prediction.Regress(request, timeout=10)
        self.assertEqual([each.value for each in answer.result.regressions], [3.5, 4.0])

    def test_iris_names_a_flower(self):
        # A setosa and a virginica of Fisher's table.
        flowers = {
            "sepal_length": [5.1, 6.3],
            "sepal_width": [3.5, 3.3],
            "petal_length": [1.4, 6.0],
            "petal_width": [0.2, 2.5],
        }
        shapes = inputs_of("iris")
        self.assertEqual(set(shapes), set(flowers))
        column = len(shapes["sepal_length"].tensor_shape.dim) == 2
        given = {
            name: np.array(values, np.float32).reshape((-1, 1) if column else -1)
            for name, values in flowers.items()
        }
        answer = built_in_server().predict("iris", **given)
        labels = make_array(answer.outputs["label"]).flatten().tolist()
        self.assertEqual(labels, [b"setosa", b"virginica"])
        probabilities = make_array(answer.outputs["probabilities"])
        self.assertEqual(probabilities.shape, (2, 3))
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)

    def test_digits_gives_ten_probabilities(self):
        (name, info), = inputs_of("digits").items()
        shape = [2] + [dim.size for dim in info.tensor_shape.dim][1:]
        answer = built_in_server().predict("digits", **{name: np.zeros(shape, np.float32)})
        shapes = [make_array(tensor).shape for tensor in answer.outputs.values()]
        self.assertIn((2, 10), shapes)
