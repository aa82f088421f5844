#!/usr/bin/env python3
"""Times kinglet against other CPU engines on the same models and inputs, in turns.

    benches/peers/compare.py MODELS [--threads 1 2] [--rounds 15] [--peers onnxruntime openvino litert]
                             [--only NAME ..] [--kinglet PATH] [--output TABLE.md]

MODELS is a folder of `NAME.onnx` (or a folder `NAME` with a SavedModel, or `NAME.tflite` for LiteRT, and for OpenVINO where there is no ONNX model, next to them)
and `NAME.npz` with the arrays `in/INPUT` and `out/OUTPUT`. Every engine is a process of its own that answers each line
of its standard input with one line of JSON; the driver lets them run one after the other, a few runs at a time, so
that noise on the machine meets all of them. Outputs are compared first: who answers something else is not timed.

The engines are installed, pinned, into a virtual environment next to this file (`setup.sh`).
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
WORKER = os.path.join(HERE, "worker.py")
# What one turn of an engine may take, in seconds.
TURN = 0.25


class Engine:
    """A process that runs one model when told to."""

    def __init__(self, name, command, busy):
        self.name, self.busy = name, busy
        started = time.perf_counter()
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.ready = self.answer()
        self.first_answer = self.ready["load_ms"] + self.ready["first_run_ms"]
        self.start_ms = (time.perf_counter() - started) * 1e3
        self.medians, self.cpu, self.peak_rss = [], [], self.ready["peak_rss_bytes"]

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"ended with code {self.process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def turn(self):
        runs = max(3, min(2000, int(TURN * 1e3 / max(self.ready["median_ms"], 1e-3))))
        self.process.stdin.write(f"{runs}\n")
        self.process.stdin.flush()
        answer = self.answer()
        self.medians.append(answer["median_ms"])
        self.cpu.append(answer.get("cpu_ms", float("nan")))
        self.peak_rss = max(self.peak_rss, answer["peak_rss_bytes"])

    def median(self):
        return statistics.median(self.cpu if self.busy else self.medians)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def models(folder, only):
    for file in sorted(os.listdir(folder)):
        name, ending = os.path.splitext(file)
        if ending != ".npz" or (only and name not in only):
            continue
        files = {kind: os.path.join(folder, name + suffix) for kind, suffix in
                 (("onnx", ".onnx"), ("saved_model", ""), ("tflite", ".tflite"))}
        yield name, os.path.join(folder, file), {kind: path for kind, path in files.items() if os.path.exists(path)}


def command(peer, files, arrays, threads, output, options):
    source = files.get("onnx") or files.get("saved_model")
    if peer == "kinglet":
        return source and [options.kinglet, "bench", source, "--input", arrays, f"--threads={threads}", "--interactive",
                           "--warm-up=3", "--output", output]
    source = files.get("tflite") if peer == "litert" else files.get("onnx")
    if peer == "openvino":
        source = source or files.get("tflite")
    return source and [options.python, WORKER, peer, source, arrays, str(threads), output]


def difference(numpy, expected, found):
    """The largest difference relative to the scale of the expected output."""
    worst = 0.0
    for name, array in expected.items():
        if name not in found or found[name].shape != array.shape:
            return float("inf")
        scale = max(float(numpy.abs(array).max()), 1e-30) if array.size else 1.0
        if array.size:
            worst = max(worst, float(numpy.abs(found[name].astype("f8") - array.astype("f8")).max()) / scale)
    return worst


def compare(name, arrays, files, threads, options, numpy):
    engines, notes = [], []
    with numpy.load(arrays) as file:
        expected = {key[4:]: file[key] for key in file.files if key.startswith("out/")}
    for peer in ["kinglet"] + options.peers:
        with tempfile.TemporaryDirectory() as scratch:
            output = os.path.join(scratch, "y.npz")
            line = command(peer, files, arrays, threads, output, options)
            if not line:
                continue
            try:
                engine = Engine(peer, line, options.busy)
            except (RuntimeError, OSError, ValueError) as error:
                notes.append(f"{name}, {threads} threads: {peer} failed: {error}")
                continue
            with numpy.load(output) as file:
                found = {key: file[key] for key in file.files}
        off = difference(numpy, expected, found) if len(expected) == len(found) else float("inf")
        if peer == "litert" or (peer == "openvino" and "onnx" not in files):
            # Converters rename outputs and keep their order only.
            off = difference(numpy, dict(enumerate(expected.values())), dict(enumerate(found.values())))
        if off > options.tolerance:
            notes.append(f"{name}, {threads} threads: {peer} differs by {off:.1e} of the scale and is not timed")
            engine.close()
        else:
            engines.append(engine)
    for _ in range(options.rounds):
        for engine in engines:
            engine.turn()
    for engine in engines:
        engine.close()
    return engines, notes


def time_text(ms):
    return f"{ms * 1e3:.1f} us" if ms < 0.1 else f"{ms:.3g} ms"


def table(results, peers):
    names = ["kinglet"] + peers
    lines = ["| model | threads | " + " | ".join(names) + " | kinglet / best peer | memory MB: " + ", ".join(names)
             + " | first answer ms: " + ", ".join(names) + " |", "|---" * (len(names) + 5) + "|"]
    for (name, threads), engines in results.items():
        by_name = {engine.name: engine for engine in engines}
        cells = [time_text(by_name[peer].median()) if peer in by_name else "-" for peer in names]
        best = min((engine.median() for engine in engines if engine.name != "kinglet"), default=None)
        ratio = f"{by_name['kinglet'].median() / best:.2f}" if best and "kinglet" in by_name else "-"
        memory = ", ".join(f"{by_name[peer].peak_rss / 1e6:.0f}" if peer in by_name else "-" for peer in names)
        load = ", ".join(f"{by_name[peer].first_answer:.0f}" if peer in by_name else "-" for peer in names)
        lines.append(f"| {name} | {threads} | " + " | ".join(cells) + f" | {ratio} | {memory} | {load} |")
    return lines


def cpu():
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--peers", nargs="*", default=["onnxruntime", "openvino", "litert"])
    parser.add_argument("--only", nargs="*", default=[])
    target = os.path.join(ROOT, "target", "x86_64-unknown-linux-gnu")
    parser.add_argument("--kinglet", default=os.path.join(target, "release", "kinglet"))
    parser.add_argument("--python", default=os.path.join(HERE, ".venv", "bin", "python"))
    parser.add_argument("--busy", action="store_true",
                        help="compare the time on a core instead of the time passed: with one thread only")
    parser.add_argument("--tolerance", type=float, default=1e-3,
                        help="of the outputs' scale; quantised models differ by steps of 1/255 (default: %(default)s)")
    parser.add_argument("--output")
    options = parser.parse_args()
    import numpy

    results, notes = {}, []
    for name, arrays, files in models(options.models, options.only):
        for threads in options.threads:
            engines, said = compare(name, arrays, files, threads, options, numpy)
            results[name, threads] = engines
            notes += said
            print(table({(name, threads): engines}, options.peers)[-1], *said, sep="\n", flush=True)
    versions = subprocess.run([options.python, WORKER, "versions"], capture_output=True, text=True).stdout.strip()
    kinglet = subprocess.run([options.kinglet, "--version"], capture_output=True, text=True).stdout.strip()
    lines = [f"{cpu()}, {os.cpu_count()} cores; {time.strftime('%Y-%m-%d')}; {kinglet}; {versions}; {options.rounds} rounds,"
             f" median of the rounds' medians.", ""] + table(results, options.peers) + [""] + [f"- {note}" for note in notes]
    text = "\n".join(lines).rstrip() + "\n"
    if options.output:
        with open(options.output, "w") as file:
            file.write(text)
    else:
        print("\n" + text)
    return 1 if any(not any(e.name == "kinglet" for e in engines) for engines in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
