"""What `kinglet inspect` says of memory, beside what a server then takes; what an idle server takes of the CPU."""

import os
import pathlib
import re
import subprocess
import tempfile
import time
import unittest

import numpy as np
from harness import ROOT, SHARED, TIMEOUT, ClientTest, Server, binary, make_tensor

# Models for timing, where they are at hand.
PERF = pathlib.Path(os.environ.get("KINGLET_PERF_MODELS", SHARED / "perf_models"))
# With the code of the process from 8 to 130 MB; SavedModel and ONNX, convolutions, attention, recurrence, tables.
MODELS = [
    ROOT / "weights" / "digits" / "1",
    ROOT / "weights" / "iris" / "1",
    *(SHARED / "models" / "saved_model" / name / "1" for name in ("kws_dscnn", "ad_autoencoder", "effnet_lite0", "resnet8_cifar10")),
    *(SHARED / "models" / "onnx" / name / "model.onnx" for name in ("digit_cnn", "fastestdet", "ultraface", "effnet_lite0")),
    *(PERF / f"{name}.onnx" for name in (
        "mnist_mlp", "gru_kws", "lstm_speech", "yolov8n", "vit_tiny", "minilm_l6", "ssdlite320", "mobilenetv2", "resnet50",
        "efficientnet_b0",
    )),
]
# Without large tables: how much is mapped around a row that is read is the kernel's choice (since Linux 6.18 a whole folio).
CONVERTED = [SHARED / "models" / "onnx" / "effnet_lite0" / "model.onnx", PERF / "mobilenetv2.onnx"]
TYPES = {
    "float": np.float32, "double": np.float64, "int32": np.int32, "int64": np.int64, "uint8": np.uint8, "bool": np.bool_,
}
WITHIN = 0.15


def setUpModule():
    with open(binary(), "rb") as file:
        if file.read(4) != b"\x7fELF":
            raise unittest.SkipTest("memory and time of an emulated server are the emulator's")

PREDICTED = re.compile(r"^memory of a server with it: ([\d.]+) MB at most", re.MULTILINE)


def peak(process):
    """The most memory that a process had, in MB."""
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024 / 1e6


def inputs_of(inspected):
    """Values for the inputs that `kinglet inspect` lists, with 1 for what a shape leaves open."""
    default = inspected.partition("\nsignature serving_default (")[2].partition("\nsignature ")[0]
    for name, dtype, shape in re.findall(r"^  input +(\S+) +(\w+) \[([^\]]*)\]", default, re.MULTILINE):
        shape = [1 if size == "?" else int(size) for size in shape.split(", ") if size]
        values = np.zeros(shape, TYPES[dtype])
        if name == "input_ids":
            # As text does: each token another row of the table.
            values.flat = np.arange(values.size) * 211 % 30000
        yield name, values


class Prediction(ClientTest):
    def test_inspect_says_what_a_server_takes(self):
        self.compare([model for model in MODELS if self.is_there(model)])

    def test_it_does_so_for_converted_models(self):
        with tempfile.TemporaryDirectory(prefix="kinglet-converted-") as folder:
            copies = []
            for model in filter(self.is_there, CONVERTED):
                for panels in ("best", "none"):
                    copies.append(pathlib.Path(folder) / f"{model.stem}-{panels}" / "1")
                    command = [binary(), "convert", str(model), str(copies[-1]), f"--panels={panels}"]
                    subprocess.run(command, check=True, capture_output=True)
            self.compare(copies)

    @staticmethod
    def is_there(model):
        if not model.exists():
            print(f"SKIPPED: {model.relative_to(model.parents[2])} is not there")
        return model.exists()

    def compare(self, models):
        rows = []
        for model in models:
            inspected = subprocess.run([binary(), "inspect", str(model)], capture_output=True, text=True, check=True).stdout
            predicted = float(PREDICTED.search(inspected)[1])
            server = Server("--model_name=m", f"--model_base_path={model}", "--grpc_max_receive_message_bytes=16777216")
            try:
                server.wait_for("m")
                inputs = {name: make_tensor(values, content=True) for name, values in inputs_of(inspected)}
                server.predict("m", **inputs)
                measured = peak(server.process)
            finally:
                server.stop()
            rows.append((str(model), predicted, measured))
        for name, predicted, measured in rows:
            print(f"{predicted:7.1f} MB predicted, {measured:7.1f} measured ({predicted / measured:.2f}): {name}")
        off = [row for row in rows if abs(row[1] - row[2]) > WITHIN * row[2]]
        self.assertEqual(off, [])


class Idle(ClientTest):
    def test_it_sleeps(self):
        with tempfile.TemporaryDirectory(prefix="kinglet-idle-") as folder:
            os.symlink(ROOT / "weights" / "digits", pathlib.Path(folder) / "digits")
            server = Server(f"--models_dir={folder}")
            self.addCleanup(server.stop)
            server.wait_for("digits")
            time.sleep(2)
            before = self.ticks(server.process)
            time.sleep(4)
            self.assertLessEqual(self.ticks(server.process) - before, 1)

    @staticmethod
    def ticks(process):
        """Hundredths of a second that a process has computed."""
        fields = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rsplit(") ", 1)[1].split()
        return int(fields[11]) + int(fields[12])

    @unittest.skipUnless(hasattr(os, "sched_setaffinity"), "Linux only")
    def test_threads_follow_the_cpus_that_it_may_use(self):
        def threads(cpus):
            bench = [binary(), "bench", str(ROOT / "weights" / "digits" / "1"), "--iterations=1", "--warm_up=1"]
            said = subprocess.run(
                bench, capture_output=True, text=True, timeout=TIMEOUT, check=True,
                preexec_fn=lambda: os.sched_setaffinity(0, cpus),
            ).stdout
            return int(re.search(r"(\d+) threads?, ", said)[1])

        allowed = sorted(os.sched_getaffinity(0))
        self.assertEqual(threads(allowed[:1]), 1)
        self.assertEqual(threads(allowed[:2]), len(allowed[:2]))


if __name__ == "__main__":
    unittest.main()
