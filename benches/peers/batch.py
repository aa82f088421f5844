"""Writes ONNX models of one image as models of several, for compare.py.

    python batch.py FOLDER NAME.. --batch 8 --out FOLDER

The first dimension of every input and output is set, and ONNX Runtime records the outputs of random inputs:
OUT/NAME_b8.onnx and .npz. Models that spell the number of images out inside are refused by ONNX Runtime here. Needs the
packages onnx and onnxruntime.
"""

import argparse
import pathlib

import numpy
import onnx
import onnxruntime


def write(source, target, batch):
    model = onnx.load(str(source))
    constants = {constant.name for constant in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    for value in [*inputs, *model.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_value = batch
    del model.graph.value_info[:]
    onnx.save(model, str(target))
    session = onnxruntime.InferenceSession(str(target), providers=["CPUExecutionProvider"])
    random = numpy.random.default_rng(7)
    arrays = {value.name: random.standard_normal(value.shape).astype("f4") for value in session.get_inputs()}
    outputs = session.run(None, arrays)
    recording = {f"in/{name}": array for name, array in arrays.items()}
    recording |= {f"out/{o.name}": value for o, value in zip(session.get_outputs(), outputs, strict=True)}
    numpy.savez(target.with_suffix(".npz"), **recording)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("names", nargs="+")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.names:
        write(options.folder / f"{name}.onnx", options.out / f"{name}_b{options.batch}.onnx", options.batch)


if __name__ == "__main__":
    main()
