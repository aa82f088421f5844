#!/usr/bin/env python3
"""Resident memory over thousands of runs of each model: it must not grow.

    benches/flat_memory.py --kinglet PATH [--runs 10000] [--seconds 120] [--threads 2] MODEL...

A MODEL is what `kinglet bench` takes, or a folder of .onnx files. Each is run --runs times, or as often as --seconds allow,
in a hundred pieces; memory is read after each. It fails for a model whose last third of readings is, in the middle, more than
256 KiB and 1% above the first third without its first five. Prints a row of a table for each.
"""
import argparse, json, pathlib, re, statistics, subprocess, sys

PIECES = 100
WARM_UP = 20


def resident(pid):
    """KiB, by part."""
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return sum(int(re.search(rf"{part}:\s+(\d+)", text)[1]) for part in ("RssAnon", "RssShmem"))


def measure(arguments, model):
    """The row, and whether memory stayed where it was."""
    command = [arguments.kinglet, "bench", str(model), f"--threads={arguments.threads}", f"--warm-up={WARM_UP}", "--interactive"]
    recording = model.with_suffix(".npz")
    if recording.is_file():
        command.append(f"--input={recording}")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        def run(count):
            process.stdin.write(f"{count}\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        json.loads(process.stdout.readline())
        per_run = run(WARM_UP)["mean_ms"] / 1e3
        runs = max(PIECES, min(arguments.runs, int(arguments.seconds / per_run)))
        readings = []
        for piece in range(PIECES):
            count = runs * (piece + 1) // PIECES - runs * piece // PIECES
            run(count)
            readings.append(resident(process.pid))
        process.stdin.close()
        process.wait()
    first = statistics.median(readings[5 : PIECES // 3])
    last = statistics.median(readings[-PIECES // 3 :])
    flat = last - first <= max(256, first / 100)
    place = f"{model.parent.name}/{model.name}" if model.is_dir() else model.stem
    row = [place, f"{runs:,}", *(f"{reading / 1024:.2f}" for reading in (readings[0], first, last, max(readings)))]
    return f"| {' | '.join(row)} |{'' if flat else ' GROWS'}", flat


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinglet", required=True)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("models", nargs="+", type=pathlib.Path)
    arguments = parser.parse_args()
    models = []
    for model in arguments.models:
        inside = sorted(model.glob("*.onnx")) if model.is_dir() else []
        models += inside if len(inside) > 1 else [model]
    print("| model | runs | own memory MiB: first | first third | last third | most |\n| --- | ---: | ---: | ---: | ---: | ---: |")
    failed = False
    for model in models:
        row, flat = measure(arguments, model)
        print(row, flush=True)
        failed |= not flat
    sys.exit(failed)


if __name__ == "__main__":
    main()
