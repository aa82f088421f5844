#!/usr/bin/env python3
"""Cold start: from exec to the first answer, memory, and size on disk, beside TensorFlow and ONNX Runtime.

    benches/cold_start.py --kinglet PATH --tensorflow PYTHON --onnxruntime PYTHON --onnx mobilenetv2.onnx

--tensorflow and --onnxruntime are interpreters that can import the package; each may be left out. The SavedModel is
MobileNetV2 of Keras with random weights (14 MB), made by --tensorflow in a temporary folder, or given by --saved_model.
Files are in the page cache; engines take turns, the median of --rounds counts.
"""
import argparse, http.client, json, os, pathlib, re, shutil, socket, statistics, subprocess, sys, tempfile, time

EXPORT = """
import sys, keras
keras.utils.set_random_seed(1)
keras.applications.MobileNetV2(weights=None).export(sys.argv[1], verbose=False)
"""
TENSORFLOW = """
import sys, numpy, tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
signature = model.signatures["serving_default"]
name = list(signature.structured_input_signature[1])[0]
signature(**{name: tf.constant(numpy.zeros((1, 224, 224, 3), numpy.float32))})
print("answered", flush=True); sys.stdin.readline()
"""
ONNXRUNTIME = """
import sys, numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
given = session.get_inputs()[0]
session.run(None, {given.name: numpy.zeros((1, 3, 224, 224), numpy.float32)})
print("answered", flush=True); sys.stdin.readline()
"""


def memory(pid):
    """Resident memory now and at most, in MB."""
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return [int(re.search(rf"{row}:\s+(\d+)", text)[1]) * 1024 / 1e6 for row in ("VmRSS", "VmHWM")]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def server(binary, flags, model, body):
    """A server from exec to the answer of its first call."""
    port, environment = free_port(), {"PATH": os.environ.get("PATH", "")}
    command = [binary, "serve", f"--http_port={port}", "--log_level=error", *flags]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    try:
        while True:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                connection.request("POST", f"/v1/models/{model}:predict", body)
                answer = connection.getresponse()
                text = answer.read()
                if answer.status == 200:
                    break
            except OSError:
                pass
            if process.poll() is not None or time.perf_counter() - began > 60:
                sys.exit(f"{command} did not answer: {text if 'text' in locals() else ''}")
            time.sleep(0.0002)
        took = time.perf_counter() - began
        time.sleep(0.3)
        return took, *memory(process.pid)
    finally:
        process.terminate()
        process.wait()


def script(python, code, model):
    """An interpreter from exec to the answer of its first run."""
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    began = time.perf_counter()
    process = subprocess.Popen(
        [python, "-c", code, model], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True, env=environment,
    )
    try:
        if process.stdout.readline() != "answered\n":
            sys.exit(f"{python} cannot run {model}")
        return time.perf_counter() - began, *memory(process.pid)
    finally:
        process.kill()
        process.wait()


def size_of(python, *packages):
    """The packages' files, in MB, without the interpreter."""
    code = "import importlib.util, sys; print(*[importlib.util.find_spec(n).submodule_search_locations[0] for n in sys.argv[1:]])"
    folders = subprocess.run([python, "-c", code, *packages], capture_output=True, text=True, check=True).stdout.split()
    files = {path.stat().st_ino: path.stat().st_size for folder in folders for path in pathlib.Path(folder).rglob("*") if path.is_file()}
    return sum(files.values()) / 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinglet", required=True)
    parser.add_argument("--tensorflow", metavar="PYTHON")
    parser.add_argument("--onnxruntime", metavar="PYTHON")
    parser.add_argument("--onnx", metavar="FILE", help="MobileNetV2 as ONNX, input [1, 3, 224, 224]")
    parser.add_argument("--saved_model", metavar="FOLDER", help="MobileNetV2 as SavedModel, instead of a new one")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="kinglet-cold-")
    try:
        saved_model = options.saved_model
        if not saved_model and options.tensorflow:
            saved_model = f"{folder}/mobilenetv2"
            subprocess.run([options.tensorflow, "-c", EXPORT, saved_model], check=True, capture_output=True)
        image = lambda *shape: json.dumps({"instances": zeros((1, *shape))}, separators=(",", ":"))
        kinglet_size = os.path.getsize(options.kinglet) / 1e6
        cases = {}
        iris = '{"instances":[{"sepal_length":5.1,"sepal_width":3.5,"petal_length":1.4,"petal_width":0.2}]}'
        cases["built-in models", "kinglet"] = kinglet_size, lambda: server(options.kinglet, [], "iris", iris)
        if saved_model:
            flags, body = [f"--model_base_path={saved_model}", "--model_name=m"], image(224, 224, 3)
            cases["MobileNetV2, SavedModel", "kinglet"] = kinglet_size, lambda: server(options.kinglet, flags, "m", body)
            converted = f"{folder}/converted/1"
            made = subprocess.run([options.kinglet, "convert", saved_model, converted], capture_output=True)
            if made.returncode == 0:
                own = [f"--model_base_path={converted}", "--model_name=m"]
                cases["MobileNetV2, converted", "kinglet"] = kinglet_size, lambda: server(options.kinglet, own, "m", body)
            if options.tensorflow:
                cases["MobileNetV2, SavedModel", "TensorFlow"] = (
                    size_of(options.tensorflow, "tensorflow"),
                    lambda: script(options.tensorflow, TENSORFLOW, saved_model),
                )
        if options.onnx:
            onnx = [f"--model_base_path={os.path.abspath(options.onnx)}", "--model_name=m"]
            image_onnx = image(3, 224, 224)
            cases["MobileNetV2, ONNX", "kinglet"] = kinglet_size, lambda: server(options.kinglet, onnx, "m", image_onnx)
            if options.onnxruntime:
                cases["MobileNetV2, ONNX", "ONNX Runtime"] = (
                    size_of(options.onnxruntime, "onnxruntime", "numpy"),
                    lambda: script(options.onnxruntime, ONNXRUNTIME, options.onnx),
                )
        results = {case: [] for case in cases}
        for _ in range(options.rounds):
            for case, (_, run) in cases.items():
                results[case].append(run())
        print("| model | engine | exec to first answer, ms | resident after it, MB | peak, MB | on disk, MB |")
        print("| --- | --- | ---: | ---: | ---: | ---: |")
        for (model, engine), runs in results.items():
            took, resident, peak = (statistics.median(column) for column in zip(*runs))
            size = cases[model, engine][0]
            print(f"| {model} | {engine} | {took * 1e3:.1f} | {resident:.1f} | {peak:.1f} | {size:.1f} |")
    finally:
        shutil.rmtree(folder)


def zeros(shape):
    return [zeros(shape[1:]) for _ in range(shape[0])] if len(shape) > 1 else [0] * shape[0]


if __name__ == "__main__":
    main()
