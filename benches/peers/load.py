#!/usr/bin/env python3
"""How long kinglet and ONNX Runtime take from a model's path to its first answer, process by process.

    benches/peers/load.py MODEL.onnx .. --kinglet PATH [--python PATH] [--threads 1 2] [--rounds 7]

Next to each model stands `MODEL.npz` with the arrays `in/INPUT`. Each load is a process of its own, the engines take turns, and
the median of the rounds counts. What ONNX Runtime takes to be imported is not counted, nor is the start of kinglet's process;
files are in the page cache. A load ends when the model can run: ONNX Runtime's when the session is made, kinglet's when the
model is planned for its inputs; weights are packed by then. The first answer is the load and the run after it, which touches
the memory of a run for the first time.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile

WORKER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "worker.py")


def kinglet(binary, model, arrays, threads):
    command = [binary, "bench", model, "--input", arrays, f"--threads={threads}", "--iterations=1", "--warm_up=2", "--json"]
    return figures(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))


def figures(found):
    return found["load_ms"] + found["first_run_ms"], found["load_ms"], found["peak_rss_bytes"] / 1e6


def onnxruntime(python, model, arrays, threads):
    with tempfile.TemporaryDirectory() as scratch:
        command = [python, WORKER, "onnxruntime", model, arrays, str(threads), os.path.join(scratch, "y.npz")]
        line = subprocess.run(command, input="", capture_output=True, text=True, check=True).stdout
    return figures(json.loads(line.splitlines()[0]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL.onnx")
    parser.add_argument("--kinglet", required=True)
    parser.add_argument("--python", default=os.path.join(os.path.dirname(WORKER), ".venv/bin/python"))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    print("| model | threads | first answer ms: kinglet, onnxruntime | ratio | load ms: kinglet, onnxruntime | ratio | peak MB |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for model in options.models:
        name, arrays = os.path.splitext(os.path.basename(model))[0], os.path.splitext(model)[0] + ".npz"
        for threads in options.threads:
            own, other = [], []
            for _ in range(options.rounds):
                own.append(kinglet(options.kinglet, model, arrays, threads))
                other.append(onnxruntime(options.python, model, arrays, threads))
            a, b = ([statistics.median(column) for column in zip(*runs)] for runs in (own, other))
            print(
                f"| {name} | {threads} | {a[0]:.1f}, {b[0]:.1f} | {a[0] / b[0]:.2f} "
                f"| {a[1]:.1f}, {b[1]:.1f} | {a[1] / b[1]:.2f} | {a[2]:.0f}, {b[2]:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
