#!/usr/bin/env python3
"""Cold start: from exec to the first answer, memory, and size on disk, beside other engines and a server in Python.

    benches/cold_start.py --kinglet PATH --tensorflow PYTHON --onnxruntime PYTHON --openvino PYTHON --mlserver PYTHON \\
        --litert PYTHON --tflite mobilenet_v2_1.0_224_quant.tflite --onnx mobilenetv2.onnx

Engines are given as interpreters that can import the package; each may be left out. The SavedModel is
MobileNetV2 of Keras with random weights (14 MB), made by --tensorflow in a temporary folder, or given by --saved_model.
MLServer serves a model of one line of NumPy, as kinglet's built-in models are small.
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

OPENVINO = """
import sys, numpy, openvino
compiled = openvino.Core().compile_model(sys.argv[1], "CPU")
compiled(numpy.zeros((1, 3, 224, 224), numpy.float32))
print("answered", flush=True); sys.stdin.readline()
"""
LITERT = """
import sys, numpy
from ai_edge_litert.interpreter import Interpreter
interpreter = Interpreter(sys.argv[1], num_threads=2)
interpreter.allocate_tensors()
given = interpreter.get_input_details()[0]
interpreter.set_tensor(given["index"], numpy.zeros(given["shape"], given["dtype"]))
interpreter.invoke()
print("answered", flush=True); sys.stdin.readline()
"""
MLSERVER = "import sys; from mlserver.cli import main; sys.argv = ['mlserver', 'start', sys.argv[1]]; main()"


def memory(pid):
    """Resident memory now and at most, in MB."""
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return [int(re.search(rf"{row}:\s+(\d+)", text)[1]) * 1024 / 1e6 for row in ("VmRSS", "VmHWM")]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def kinglet(binary, flags, model, body):
    """kinglet from exec to the answer of its first call."""
    port, environment = free_port(), {"PATH": os.environ.get("PATH", "")}
    command = [binary, "serve", f"--http_port={port}", "--log_level=error", *flags]
    return server(command, environment, port, f"/v1/models/{model}:predict", body)


def mlserver(python, folder):
    """MLServer with the model of benches/server, from exec to the answer of its first call."""
    port, here = free_port(), pathlib.Path(__file__).parent / "server"
    folder = pathlib.Path(folder) / "mlserver"
    folder.mkdir(exist_ok=True)
    settings = {
        "host": "127.0.0.1", "http_port": port, "grpc_port": free_port(), "metrics_port": free_port(),
        "parallel_workers": 0, "debug": False,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    implementation = {"name": "half_plus_two", "implementation": "mlserver_model.HalfPlusTwo"}
    (folder / "model-settings.json").write_text(json.dumps(implementation))
    shutil.copy(here / "mlserver_model.py", folder)
    body = json.dumps({"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [1.0]}]})
    environment = os.environ | {"PYTHONPATH": str(folder)}
    return server([python, "-c", MLSERVER, str(folder)], environment, port, "/v2/models/half_plus_two/infer", body)


def server(command, environment, port, path, body):
    """A server from exec to the answer of its first call."""
    began = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment, start_new_session=True
    )
    try:
        while True:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                connection.request("POST", path, body, {"Content-Type": "application/json"})
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


def whole(python):
    """All packages of an interpreter's environment, in MB."""
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    folder = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    return sum(path.stat().st_size for path in pathlib.Path(folder).rglob("*") if path.is_file()) / 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinglet", required=True)
    parser.add_argument("--tensorflow", metavar="PYTHON")
    parser.add_argument("--onnxruntime", metavar="PYTHON")
    parser.add_argument("--openvino", metavar="PYTHON")
    parser.add_argument("--litert", metavar="PYTHON")
    parser.add_argument("--mlserver", metavar="PYTHON")
    parser.add_argument("--tflite", metavar="FILE", help="MobileNetV2 for LiteRT")
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
        cases["built-in models", "kinglet"] = kinglet_size, lambda: kinglet(options.kinglet, [], "iris", iris)
        if options.mlserver:
            cases["one line of NumPy", "MLServer"] = (
                whole(options.mlserver), lambda: mlserver(options.mlserver, folder)
            )
        if saved_model:
            flags, body = [f"--model_base_path={saved_model}", "--model_name=m"], image(224, 224, 3)
            cases["MobileNetV2, SavedModel", "kinglet"] = kinglet_size, lambda: kinglet(options.kinglet, flags, "m", body)
            converted = f"{folder}/converted/1"
            made = subprocess.run([options.kinglet, "convert", saved_model, converted], capture_output=True)
            if made.returncode == 0:
                own = [f"--model_base_path={converted}", "--model_name=m"]
                cases["MobileNetV2, converted", "kinglet"] = kinglet_size, lambda: kinglet(options.kinglet, own, "m", body)
            if options.tensorflow:
                cases["MobileNetV2, SavedModel", "TensorFlow"] = (
                    size_of(options.tensorflow, "tensorflow"),
                    lambda: script(options.tensorflow, TENSORFLOW, saved_model),
                )
        if options.onnx:
            onnx = [f"--model_base_path={os.path.abspath(options.onnx)}", "--model_name=m"]
            image_onnx = image(3, 224, 224)
            cases["MobileNetV2, ONNX", "kinglet"] = kinglet_size, lambda: kinglet(options.kinglet, onnx, "m", image_onnx)
            if options.onnxruntime:
                cases["MobileNetV2, ONNX", "ONNX Runtime"] = (
                    size_of(options.onnxruntime, "onnxruntime", "numpy"),
                    lambda: script(options.onnxruntime, ONNXRUNTIME, options.onnx),
                )
            if options.openvino:
                cases["MobileNetV2, ONNX", "OpenVINO"] = (
                    size_of(options.openvino, "openvino", "numpy"),
                    lambda: script(options.openvino, OPENVINO, options.onnx),
                )
        if options.tflite and options.litert:
            cases["MobileNetV2, 8 bits, tflite", "LiteRT"] = (
                size_of(options.litert, "ai_edge_litert", "numpy"),
                lambda: script(options.litert, LITERT, options.tflite),
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
