"""Predict on TensorFlow Serving's test models: numbers, element types, versions, filters."""

import numpy as np
from harness import ClientTest, make_array, make_tensor, needs_tfs_models, spec, tfs_server
from tensorflow.core.framework import tensor_pb2, types_pb2


@needs_tfs_models
class Predict(ClientTest):
    def setUp(self):
        self.server = tfs_server()

    def test_numbers(self):
        for model, inputs, expected in [
            ("half_plus_two", [[1.0], [2.0], [5.0]], [[2.5], [3.0], [4.5]]),
            ("half_plus_two_tf2", [1.0], [2.5]),
            ("half_plus_three", [1.0, 2.0, 5.0], [3.5, 4.0, 5.5]),
            ("matrix", np.ones((2, 3, 3), np.float32), np.full((2, 3, 3), 2.5)),
            ("versions", [[2.0]], [[3.0]]),
        ]:
            with self.subTest(model):
                self.assert_array(self.server.predict(model, x=inputs).outputs["y"], expected)

    def test_tensor_content_is_read(self):
        content = make_tensor(np.array([[2.0], [4.0]], np.float32), content=True)
        self.assert_array(self.server.predict("half_plus_two", x=content).outputs["y"], [[3.0], [4.0]])

    def test_short_lists_repeat_their_last_value(self):
        tensor = make_tensor([[2.0], [4.0]])
        tensor.tensor_shape.dim[0].size = 4
        answer = self.server.predict("half_plus_two", x=tensor)
        self.assert_array(answer.outputs["y"], [[3.0], [4.0], [4.0], [4.0]])
        del tensor.float_val[:]
        self.assert_array(self.server.predict("half_plus_two", x=tensor).outputs["y"], [[2.0]] * 4)

    def test_every_element_type_passes_unchanged(self):
        for name, values in {
            "float32": [1.5, -0.0, float("inf")],
            "float64": [0.1, 1e300],
            "float16": [1.5, -2.0],
            "int8": [-128, 127],
            "int16": [-32768, 32767],
            "int32": [-(2**31), 2**31 - 1],
            "int64": [-(2**63), 2**63 - 1],
            "uint8": [0, 255],
            "uint16": [0, 65535],
            "uint32": [0, 2**32 - 1],
            "uint64": [0, 2**64 - 1],
            "bool": [True, False],
            "complex64": [1 + 2j, -3j],
        }.items():
            for content in (False, True):
                with self.subTest(name, content=content):
                    array = np.array(values, name)
                    answer = self.server.predict("dtypes", "id_" + name, x=make_tensor(array, content))
                    output = answer.outputs["y"]
                    np.testing.assert_array_equal(make_array(output), array)
                    self.assertFalse(output.tensor_content, "answers are lists by default")

    def test_strings_pass_unchanged(self):
        values = [b"", b"abc", b"\x00\xff\x00"]
        answer = self.server.predict("dtypes", "id_string", x=values)
        self.assertEqual(list(answer.outputs["y"].string_val), values)
        lengths_and_bytes = tensor_pb2.TensorProto(
            dtype=types_pb2.DT_STRING, tensor_content=b"\x01\x02abc"
        )
        lengths_and_bytes.tensor_shape.dim.add(size=2)
        answer = self.server.predict("dtypes", "id_string", x=lengths_and_bytes)
        self.assertEqual(list(answer.outputs["y"].string_val), [b"a", b"bc"])

    def test_bfloat16_is_a_pattern(self):
        tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_BFLOAT16, half_val=[0x3FC0])
        self.assertEqual(self.server.predict("dtypes", "id_bfloat16", x=tensor).outputs["y"], tensor_of(tensor))

    def test_scalars_and_empty_tensors(self):
        self.assertEqual(make_array(self.server.predict("half_plus_three", x=7.0).outputs["y"]), 6.5)
        answer = self.server.predict("half_plus_three", x=np.zeros((0,), np.float32))
        self.assertEqual(make_array(answer.outputs["y"]).shape, (0,))
        answer = self.server.predict("dtypes", "empty_out", x=1.0)
        self.assertEqual(make_array(answer.outputs["y"]).shape, (0, 2))

    def test_a_signature_without_inputs(self):
        self.assertEqual(make_array(self.server.predict("dtypes", "no_inputs").outputs["y"]).shape, (1,))

    def test_a_missing_input_takes_its_default(self):
        # The TF2 export declares x = 0.
        self.assert_array(self.server.predict("half_plus_two_tf2").outputs["y"], [2.0])

    def test_several_inputs_and_a_filter(self):
        numbers, words = np.arange(4, dtype=np.int32), [b"foo", b"bar"]
        given = {"int_tensor": numbers, "str_tensor": words}
        answer = self.server.predict("multi_io", "two_in", **given)
        self.assertEqual(set(answer.outputs), {"int_out", "str_out"})
        np.testing.assert_array_equal(make_array(answer.outputs["int_out"]), numbers)
        answer = self.server.predict("multi_io", "two_in", outputs=["str_out"], **given)
        self.assertEqual(set(answer.outputs), {"str_out"})
        self.assertEqual(list(answer.outputs["str_out"].string_val), words)

    def test_the_answer_says_who_answered(self):
        answered = self.server.predict("versions", x=[[1.0]]).model_spec
        self.assertEqual(answered, spec("versions", "serving_default", version=124))
        answered = self.server.predict(spec("versions", version=123), x=[[1.0]]).model_spec
        self.assertEqual(answered.version.value, 123)
        answered = self.server.predict(spec("versions", label="stable"), x=[[1.0]]).model_spec
        self.assertEqual((answered.version.value, answered.version_label), (123, ""))

    def test_a_stateful_model_counts(self):
        def call(signature, **inputs):
            return make_array(self.server.predict("counter", signature, **inputs).outputs["output"]).item()

        call("reset_counter")
        self.assertEqual(call("get_counter"), 0)
        self.assertEqual(call("incr_counter"), 1)
        self.assertEqual(call("incr_counter_by", delta=3.0), 4)
        self.assertEqual(call("get_counter"), 4)


def tensor_of(tensor):
    """`tensor` as an answer shows it: with a shape, be it that of a scalar."""
    shown = tensor_pb2.TensorProto()
    shown.CopyFrom(tensor)
    shown.tensor_shape.SetInParent()
    return shown
