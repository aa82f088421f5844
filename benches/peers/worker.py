"""One engine with one model: `worker.py ENGINE MODEL ARRAYS.npz THREADS OUTPUT.npz`, `worker.py versions`.

Loads, runs once, writes the outputs, and says so in a line of JSON; then answers each number on standard input with
so many timed runs: {"median_ms": .., "peak_rss_bytes": ..}. The first answer also has `load_ms` and `first_run_ms`, which
mean what kinglet's do: until the engine can run, and the run after that. The engine's package is imported before.
"""

import importlib
import importlib.metadata
import json
import statistics
import sys
import time

PACKAGES = ("onnxruntime", "openvino", "ai-edge-litert")
MODULES = {"onnxruntime": "onnxruntime", "openvino": "openvino", "litert": "ai_edge_litert.interpreter"}


def peak_rss():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:"))


def onnxruntime(model, inputs, threads):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda: dict(zip(names, session.run(names, inputs)))


def openvino(model, inputs, threads):
    import openvino

    core = openvino.Core()
    config = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY",
              "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(model, "CPU", config)
    request = compiled.create_infer_request()
    names = [output.get_any_name() for output in compiled.outputs]
    known = [name.get_any_name() for name in compiled.inputs]
    # Converters rename inputs and keep their order only.
    given = inputs if set(inputs) <= {name for i in compiled.inputs for name in i.names} else dict(zip(known, inputs.values()))
    tensors = {name: openvino.Tensor(array) for name, array in given.items()}

    def run():
        results = request.infer(tensors, share_inputs=True, share_outputs=True)
        return {name: results[index] for index, name in enumerate(names)}

    return run


def litert(model, inputs, threads):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=model, num_threads=threads)
    interpreter.allocate_tensors()
    details, arrays = interpreter.get_input_details(), list(inputs.values())
    outputs = interpreter.get_output_details()

    def run():
        for detail, array in zip(details, arrays):
            if list(detail["shape"]) != list(array.shape):
                # Converters put channels last.
                array = array.transpose(0, 2, 3, 1)
            interpreter.set_tensor(detail["index"], array)
        interpreter.invoke()
        return {str(index): interpreter.get_tensor(detail["index"]) for index, detail in enumerate(outputs)}

    return run


def measure(run, runs):
    times, before = [], time.thread_time()
    for _ in range(runs):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return {"median_ms": statistics.median(times) * 1e3, "cpu_ms": (time.thread_time() - before) / runs * 1e3}


def say(**answer):
    print(json.dumps(answer), flush=True)


def main():
    if sys.argv[1:] == ["versions"]:
        def version(package):
            try:
                return f"{package} {importlib.metadata.version(package)}"
            except importlib.metadata.PackageNotFoundError:
                return f"{package} absent"
        print(", ".join(version(package) for package in PACKAGES))
        return
    import numpy

    engine, model, arrays, threads, output = sys.argv[1:]
    with numpy.load(arrays) as file:
        inputs = {key[3:]: numpy.ascontiguousarray(file[key]) for key in file.files if key.startswith("in/")}
    try:
        importlib.import_module(MODULES[engine])
        started = time.perf_counter()
        run = {"onnxruntime": onnxruntime, "openvino": openvino, "litert": litert}[engine](model, inputs, int(threads))
        loaded = time.perf_counter()
        first = run()
        first_run_ms = (time.perf_counter() - loaded) * 1e3
    except Exception as error:  # whatever an engine throws is an answer
        say(error=f"{type(error).__name__}: {str(error)[:200]}")
        return
    numpy.savez(output, **{name: numpy.array(array) for name, array in first.items()})
    load_ms = (loaded - started) * 1e3
    say(**measure(run, 3), load_ms=load_ms, first_run_ms=first_run_ms, peak_rss_bytes=peak_rss())
    for line in sys.stdin:
        say(**measure(run, int(line)), peak_rss_bytes=peak_rss())


if __name__ == "__main__":
    main()
