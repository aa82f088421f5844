"""Makes tests/fixtures/onnx/quantized_*.onnx, small networks as onnxruntime's static quantisation writes them, and what
ONNX Runtime makes of them (`in/<name>`, `out/<name>`). Needs the packages onnx and onnxruntime.

    python tests/exports/quantized.py tests/fixtures/onnx
"""

import pathlib
import sys
import tempfile

import numpy
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

RANDOM = numpy.random.default_rng(3)


def floats(*shape):
    return RANDOM.standard_normal(shape).astype(numpy.float32)


class Inputs(CalibrationDataReader):
    def __init__(self):
        self.left = [floats(2, 3, 16, 14) for _ in range(4)]

    def get_next(self):
        return {"x": self.left.pop()} if self.left else None


def network():
    """A convolution, an inverted residual, a SiLU, a maximum, a concatenation, a mean, a product."""
    weights = {
        "w0": floats(8, 3, 3, 3) / 4,
        "b0": floats(8),
        "w1": floats(8, 1, 3, 3) / 3,
        "b1": floats(8),
        "w2": floats(8, 8, 1, 1) / 3,
        "b2": floats(8),
        "w3": floats(10, 16) / 4,
        "b3": floats(10),
        "low": numpy.array(0, numpy.float32),
        "high": numpy.array(6, numpy.float32),
    }
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w0", "b0"], ["a"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Clip", ["a", "low", "high"], ["b"]),
        node("Conv", ["b", "w1", "b1"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], group=8),
        node("Relu", ["c"], ["d"]),
        node("Conv", ["d", "w2", "b2"], ["e"], kernel_shape=[1, 1]),
        node("Add", ["e", "b"], ["f"]),
        node("Sigmoid", ["f"], ["g"]),
        node("Mul", ["f", "g"], ["h"]),
        node("MaxPool", ["h"], ["i"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Concat", ["i", "i"], ["j"], axis=1),
        node("GlobalAveragePool", ["j"], ["k"]),
        node("Flatten", ["k"], ["l"]),
        node("Gemm", ["l", "w3", "b3"], ["y"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "quantized",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 16, 14])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 10])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    forms = [
        ("unsigned", QuantFormat.QDQ, QuantType.QUInt8),
        ("signed", QuantFormat.QDQ, QuantType.QInt8),
        ("operators", QuantFormat.QOperator, QuantType.QUInt8),
    ]
    with tempfile.TemporaryDirectory() as scratch:
        source = f"{scratch}/float.onnx"
        onnx.save(network(), source)
        for name, form, activations in forms:
            target = folder / f"quantized_{name}.onnx"
            quantize_static(
                source,
                str(target),
                Inputs(),
                quant_format=form,
                per_channel=True,
                activation_type=activations,
                weight_type=QuantType.QInt8,
            )
            model = onnx.load(target)
            onnx.save(model, target)
            inputs = {"x": floats(2, 3, 16, 14)}
            session = onnxruntime.InferenceSession(str(target), providers=["CPUExecutionProvider"])
            numpy.savez(
                target.with_suffix(".npz"),
                **{"in/x": inputs["x"], "out/y": session.run(None, inputs)[0]},
            )


if __name__ == "__main__":
    main()
