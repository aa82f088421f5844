"""Writes int8 (QDQ or QOperator) versions of float ONNX models, with a recording of ONNX Runtime's outputs.

    python quantize.py FOLDER NAME... --out FOLDER [--activations QUInt8|QInt8] [--format QDQ|QOperator]

FOLDER/NAME.onnx is quantised by onnxruntime's static quantisation (weights int8 per channel, eight random images for
calibration, as its documentation has it) and written to OUT/NAME_int8.onnx, with OUT/NAME_int8.npz for compare.py:
`in/<name>` and `out/<name>`. Needs the packages onnx and onnxruntime.
"""

import argparse
import pathlib
import tempfile

import numpy
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process


class Images(CalibrationDataReader):
    """Eight random inputs."""

    def __init__(self, model):
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        self.inputs = [(i.name, [d if isinstance(d, int) else 1 for d in i.shape]) for i in session.get_inputs()]
        self.random = numpy.random.default_rng(7)
        self.left = 8

    def one(self):
        return {name: self.random.standard_normal(shape).astype(numpy.float32) for name, shape in self.inputs}

    def get_next(self):
        self.left -= 1
        return self.one() if self.left >= 0 else None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("names", nargs="+")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--activations", choices=["QUInt8", "QInt8"], default="QUInt8")
    parser.add_argument("--format", choices=["QDQ", "QOperator"], default="QDQ")
    parser.add_argument("--suffix", default="int8")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.names:
        target = options.out / f"{name}_{options.suffix}.onnx"
        with tempfile.TemporaryDirectory() as folder:
            prepared = f"{folder}/prepared.onnx"
            quant_pre_process(str(options.folder / f"{name}.onnx"), prepared, skip_symbolic_shape=True)
            quantize_static(
                prepared,
                str(target),
                Images(prepared),
                quant_format=QuantFormat[options.format],
                per_channel=True,
                activation_type=QuantType[options.activations],
                weight_type=QuantType.QInt8,
            )
        inputs = Images(str(target)).one()
        session = onnxruntime.InferenceSession(str(target), providers=["CPUExecutionProvider"])
        outputs = session.run(None, inputs)
        recording = {f"in/{key}": value for key, value in inputs.items()}
        recording |= {f"out/{o.name}": value for o, value in zip(session.get_outputs(), outputs, strict=True)}
        numpy.savez(target.with_suffix(".npz"), **recording)
        print(f"{target}: {target.stat().st_size} bytes", flush=True)


if __name__ == "__main__":
    main()
