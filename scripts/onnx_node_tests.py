#!/usr/bin/env python3
"""Writes the node tests of the package `onnx` as files for tests/onnx_nodes.rs.

    pip install onnx==1.23.2
    scripts/onnx_node_tests.py FOLDER
    KINGLET_ONNX_NODES=FOLDER cargo test --test onnx_nodes -- --nocapture

For each test FOLDER gets NAME.onnx and NAME.npz with the arrays `<set>/in/<name>` and
`<set>/out/<name>`; `<set>/rtol` and `<set>/atol` are the test's own tolerances. NumPy's files know no
bfloat16, so such arrays are kept as their bits under `<name>@bfloat16`. What an array cannot hold (sequences,
optional values without a value, 8-bit floats, 4-bit integers) gives NAME.txt, which says so, instead.
"""
import pathlib
import sys

import ml_dtypes
import numpy as np
from onnx.backend.test.case.node import collect_testcases


class NoArray(Exception):
    """A value that has no place in an .npz file."""


def plain(value):
    """The value as an array and the suffix of its name."""
    if not isinstance(value, (np.ndarray, np.generic)):
        raise NoArray(type(value).__name__)
    array = np.array(value, order="C")
    if array.dtype == ml_dtypes.bfloat16:
        return array.view(np.uint16), "@bfloat16"
    if array.dtype.kind in "OUS":
        texts = [x if isinstance(x, bytes) else str(x).encode() for x in array.ravel().tolist()]
        width = max([len(text) for text in texts] + [1])
        return np.array(texts, dtype=f"S{width}").reshape(array.shape), ""
    if array.dtype.kind not in "biufc":
        raise NoArray(str(array.dtype))
    return np.ascontiguousarray(array).reshape(array.shape), ""


def arrays(case):
    """All arrays of a test by name."""
    graph, found = case.model.graph, {}
    for position, (inputs, outputs) in enumerate(case.data_sets):
        for side, infos, values in (("in", graph.input, inputs), ("out", graph.output, outputs)):
            for info, value in zip(infos, values):
                array, suffix = plain(value)
                found[f"{position}/{side}/{info.name}{suffix}"] = array
        found[f"{position}/rtol"] = np.float64(case.rtol)
        found[f"{position}/atol"] = np.float64(case.atol)
    return found


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    written = skipped = 0
    for case in collect_testcases(None):
        try:
            np.savez_compressed(folder / f"{case.name}.npz", **arrays(case))
            written += 1
        except NoArray as reason:
            (folder / f"{case.name}.txt").write_text(f"a value is {reason}\n")
            skipped += 1
        (folder / f"{case.name}.onnx").write_bytes(case.model.SerializeToString())
    print(f"{written} tests written to {folder}, {skipped} hold values that no array can")


main()
