#!/usr/bin/env python3
"""Runs models with every instruction set and with 1, 2 and 3 threads, and compares outputs with a recording.

    scripts/check-models.py MODELS [--kinglet PATH] [--only NAME ..]

MODELS is a folder of `NAME.onnx` with `NAME.npz` beside it (arrays `in/INPUT` and `out/OUTPUT`). Outputs may differ by 1e-4 of
the largest expected value (yolov8n: 1e-3, see tests/onnx_models.rs). The same run twice must give the same bits. Needs numpy.
"""

import argparse
import os
import subprocess
import sys
import tempfile

import numpy

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TOLERANCE = {"yolov8n": 1e-3}


def run(kinglet, model, arrays, isa, threads, output):
    environment = dict(os.environ, KINGLET_ISA=isa)
    command = [kinglet, "run", model, "--input", arrays, "--output", output, f"--threads={threads}"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    if ended.returncode:
        raise RuntimeError(ended.stderr.strip() or f"code {ended.returncode}")
    if "is not available here" in ended.stderr:
        return None
    with numpy.load(output) as file:
        return {key: file[key] for key in file.files}


def difference(expected, found):
    """The largest difference relative to the scale of the expected output."""
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return float("inf")
    if not expected.size:
        return 0.0
    scale = max(float(numpy.abs(expected).max()), 1e-30)
    worst = float(numpy.abs(expected.astype("f8") - found.astype("f8")).max()) / scale
    return float("inf") if numpy.isnan(worst) else worst


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models")
    parser.add_argument("--kinglet", default=os.path.join(ROOT, "target/x86_64-unknown-linux-gnu/release/kinglet"))
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--isa", nargs="*", default=["avx512vnni", "avx512", "avx2vnni", "avx2", "portable"])
    options = parser.parse_args()
    failed = 0
    for file in sorted(os.listdir(options.models)):
        name, ending = os.path.splitext(file)
        model, arrays = (os.path.join(options.models, name + end) for end in (".onnx", ".npz"))
        if ending != ".npz" or not os.path.exists(model) or (options.only and name not in options.only):
            continue
        with numpy.load(arrays) as file:
            given = {key: file[key] for key in file.files if key.startswith("in/")}
            expected = {key[4:]: file[key] for key in file.files if key.startswith("out/")}
        for isa in options.isa:
            worst, note = 0.0, ""
            with tempfile.TemporaryDirectory() as scratch:
                output, inputs = (os.path.join(scratch, each) for each in ("y.npz", "x.npz"))
                # Without the outputs, which `kinglet run` would compare with a tolerance of its own.
                numpy.savez(inputs, **given)
                for threads in (1, 2, 3):
                    found = run(options.kinglet, model, inputs, isa, threads, output)
                    if found is None:
                        note = "SKIPPED: not on this CPU"
                        break
                    again = run(options.kinglet, model, inputs, isa, threads, output)
                    if any(found[key].tobytes() != again[key].tobytes() for key in found):
                        note = f"FAILED: two runs with {threads} threads differ"
                    if set(found) != set(expected):
                        note = f"FAILED: outputs {sorted(found)}"
                        break
                    worst = max([worst] + [difference(expected[key], found[key]) for key in expected])
            if worst > TOLERANCE.get(name, 1e-4):
                note = "FAILED"
            failed += note.startswith("FAILED")
            print(f"{name} {isa}: off by {worst:.1e} of the scale {note}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
