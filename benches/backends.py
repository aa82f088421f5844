#!/usr/bin/env python3
"""kinglet's kernels in f32 and bf16, and candle's where the binary has them, on the same models and inputs.

    benches/backends.py FOLDER --kinglet PATH [--candle PATH] [--threads 1 2] [--rounds 5]

FOLDER holds `MODEL.onnx` with `MODEL.npz` beside it, the arrays `in/INPUT` and `out/OUTPUT`. PATH after `--candle` is a binary of
the feature `candle` (it may be the same file). The ways take turns, each in a process of its own; the median of the rounds counts. An error is the
largest difference from the recorded outputs, relative to their largest value.
"""

import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import tempfile

DIFFERENCE = re.compile(r"differs by at most (\S+) of")


def call(command, threads=1):
    # candle asks rayon how many threads there are.
    environment = os.environ | {"RAYON_NUM_THREADS": str(threads)}
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, env=environment)


def median_ms(binary, flags, model, threads):
    arrays = model.with_suffix(".npz")
    command = [binary, "bench", model, "--input", arrays, f"--threads={threads}", "--iterations=20", "--warm_up=3", "--json"]
    done = call([*command, *flags], threads)
    return json.loads(done.stdout)["median_ms"] if done.returncode == 0 else None


def error(binary, flags, model, scratch):
    done = call([binary, "run", model, "--input", model.with_suffix(".npz"), "--output", scratch / "y.npz", *flags])
    if done.returncode != 0 and not DIFFERENCE.search(done.stdout):
        return (done.stderr.strip() or done.stdout.strip()).splitlines()[-1][:120]
    return f"{max(map(float, DIFFERENCE.findall(done.stdout)), default=0.0):.1e}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--kinglet", required=True)
    parser.add_argument("--candle")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    ways = [("f32", options.kinglet, []), ("bf16", options.kinglet, ["--precision=bf16"])]
    if options.candle:
        ways.append(("candle", options.candle, ["--backend=candle"]))
    names = [name for name, _, _ in ways]
    print("| model | threads | " + " | ".join(f"{name} ms" for name in names) + " | " + " | ".join(f"{name} error" for name in names) + " |")
    print("| --- " * (2 + 2 * len(ways)) + "|")
    with tempfile.TemporaryDirectory() as folder:
        for model in sorted(options.folder.glob("*.onnx")):
            errors = [error(binary, flags, model, pathlib.Path(folder)) for _, binary, flags in ways]
            for threads in options.threads:
                times = {name: [] for name in names}
                for _ in range(options.rounds):
                    for name, binary, flags in ways:
                        times[name].append(median_ms(binary, flags, model, threads))
                medians = ["-" if None in times[name] else f"{statistics.median(times[name]):.3g}" for name in names]
                print(f"| {model.stem} | {threads} | {' | '.join(medians)} | {' | '.join(errors)} |", flush=True)


if __name__ == "__main__":
    main()
