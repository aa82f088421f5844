"""Classify, Regress and MultiInference on tf.Examples."""

import grpc
from harness import TIMEOUT, ClientTest, example, needs_tfs_models, spec, tfs_server
from tensorflow_serving.apis import classification_pb2, inference_pb2, regression_pb2

INVALID = grpc.StatusCode.INVALID_ARGUMENT
FAILED = grpc.StatusCode.FAILED_PRECONDITION
CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"


def classification(model, signature, *examples):
    request = classification_pb2.ClassificationRequest(model_spec=spec(model, signature))
    request.input.example_list.examples.extend(examples)
    return request


def regression(model, signature, *examples):
    request = regression_pb2.RegressionRequest(model_spec=spec(model, signature))
    request.input.example_list.examples.extend(examples)
    return request


def multi(*tasks, examples=()):
    request = inference_pb2.MultiInferenceRequest()
    for model, signature, method in tasks:
        request.tasks.add(model_spec=spec(model, signature), method_name=method)
    request.input.example_list.examples.extend(examples)
    return request


@needs_tfs_models
class Examples(ClientTest):
    def setUp(self):
        self.stub = tfs_server().prediction

    def classes(self, request):
        answer = self.stub.Classify(request, timeout=TIMEOUT)
        return [
            [(each.label, round(each.score, 6)) for each in classes.classes]
            for classes in answer.result.classifications
        ]

    def values(self, request):
        answer = self.stub.Regress(request, timeout=TIMEOUT)
        return [round(each.value, 6) for each in answer.result.regressions]

    def test_regress(self):
        two = [example(x=80.0), example(x=20.0)]
        for model, signature, expected in [
            ("half_plus_two", "regress_x_to_y", [42.0, 12.0]),
            ("half_plus_two", "regress_x_to_y2", [43.0, 13.0]),
            ("half_plus_two_tf2", "regress_x_to_y", [42.0, 12.0]),
            ("half_plus_two_tf2", "regress_x_to_y2", [43.0, 13.0]),
            ("half_plus_three", REGRESS, [43.0, 13.0]),
        ]:
            with self.subTest(model, signature=signature):
                self.assertEqual(self.values(regression(model, signature, *two)), expected)

    def test_classify(self):
        request = classification("half_plus_two", "classify_x_to_y", example(x=2.0), example(x=20.0))
        self.assertEqual(self.classes(request), [[("", 3.0)], [("", 12.0)]])
        labels = classification("classify_labels", "", example(x=[0.2, 0.7, 0.1]))
        self.assertEqual(self.classes(labels), [[("car", 0.2), ("bike", 0.7), ("bus", 0.1)]])
        scores = classification("classify_labels", "scores_only", example(x=[0.2, 0.7, 0.1]))
        self.assertEqual(self.classes(scores), [[("", 0.2), ("", 0.7), ("", 0.1)]])
        names = classification("classify_labels", "classes_only", example(x=[0.2, 0.7, 0.1]))
        self.assertEqual(self.classes(names), [[("car", 0.0), ("bike", 0.0), ("bus", 0.0)]])

    def test_context_is_shared_and_loses(self):
        request = classification_pb2.ClassificationRequest(model_spec=spec("classify_labels"))
        request.input.example_list_with_context.context.CopyFrom(example(x=[1.0, 2.0, 3.0]))
        request.input.example_list_with_context.examples.extend([example(), example(x=[4.0, 5.0, 6.0])])
        scores = [[score for _, score in classes] for classes in self.classes(request)]
        self.assertEqual(scores, [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])

    def test_the_answer_says_who_answered(self):
        answer = self.stub.Regress(
            regression("versions", "regress_x_to_y", example(x=1.0)), timeout=TIMEOUT
        )
        self.assertEqual(answer.model_spec, spec("versions", "regress_x_to_y", version=124))

    def test_multi_inference(self):
        request = multi(
            ("half_plus_two", "regress_x_to_y", REGRESS),
            ("half_plus_two", "classify_x_to_y", CLASSIFY),
            examples=[example(x=2.0), example(x=4.0)],
        )
        first, second = self.stub.MultiInference(request, timeout=TIMEOUT).results
        self.assertEqual([each.value for each in first.regression_result.regressions], [3.0, 4.0])
        scores = [each.classes[0].score for each in second.classification_result.classifications]
        self.assertEqual(scores, [3.0, 4.0])
        self.assertEqual(first.model_spec, spec("half_plus_two", "regress_x_to_y", version=123))

    def test_refusals_of_one_signature(self):
        one = example(x=[0.2, 0.7, 0.1])
        for call, request, code, text in [
            (self.stub.Regress, regression("half_plus_two", "X", one), INVALID,
             "No signature was found with the name: X"),
            (self.stub.Regress, regression("half_plus_two", "regress_x_to_y"), INVALID, "Input is empty."),
            (self.stub.Regress, regression("classify_labels", "", one), INVALID, "Expected one output Tensor."),
            (self.stub.Regress, regression("multi_io", "", one), INVALID, "Expected one input Tensor."),
            (self.stub.Regress, regression("classify_labels", "regress_bad_shape", one), INVALID,
             "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got [1,3]"),
            (self.stub.Classify, classification("half_plus_two", "X", one), INVALID,
             "No signature was found with the name: X"),
            (self.stub.Classify, classification("half_plus_two", "classify_x_to_y"), INVALID,
             "Input is empty."),
            (self.stub.Classify, classification("versions", "classify_x2_to_y3", example(x2=1.0)), INVALID,
             "Expects arg[0] to be float but string is provided"),
        ]:
            with self.subTest(text):
                self.assertEqual(self.refused(code, call, request), text)
        text = self.refused(FAILED, self.stub.Regress, regression("half_plus_three", "", one))
        self.assertRegex(text, "^No regression inputs found in SignatureDef: ")
        text = self.refused(FAILED, self.stub.Classify, classification("classify_labels", "regress_sum", one))
        start = 'Expected classification signature outputs to contain at least one of "classes" or "scores". '
        self.assertTrue(text.startswith(start + "Signature was: "), text)

    def test_examples_that_lack_a_feature(self):
        request = regression("half_plus_two", "regress_x_to_y", example(y=1.0))
        text = self.refused(INVALID, self.stub.Regress, request)
        self.assertIn("x", text)

    def test_refusals_of_tasks(self):
        one = [example(x=1.0)]
        fine = ("half_plus_two", "regress_x_to_y", REGRESS)
        for tasks, code, text in [
            ([fine, ("half_plus_three", "", REGRESS)], INVALID,
             "All ModelSpecs in a MultiInferenceRequest must access the same model name."),
            ([fine, fine], INVALID, "Duplicate evaluation of signature: regress_x_to_y"),
            ([("half_plus_two", "X", REGRESS)], INVALID,
             "Requested signature not found in model graph: X"),
            ([("half_plus_two", "serving_default", "tensorflow/serving/predict")],
             grpc.StatusCode.UNIMPLEMENTED,
             "Unsupported signature method_name: tensorflow/serving/predict"),
            ([], INVALID, "ModelSpec has no name specified."),
            ([("none", "", REGRESS)], grpc.StatusCode.NOT_FOUND,
             "Servable not found for request: Latest(none)"),
        ]:
            with self.subTest(text):
                self.assertEqual(self.refused(code, self.stub.MultiInference, multi(*tasks, examples=one)), text)
        self.assertEqual(self.refused(INVALID, self.stub.MultiInference, multi(fine)), "Input is empty.")
