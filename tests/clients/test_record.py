"""Recording live calls, and what the record is good for: warm-up."""

import json
import pathlib
import shutil
import struct
import tempfile
import urllib.request

from harness import MODELS, TIMEOUT, ClientTest, Server, example, make_array, model_config, needs_tfs_models, spec
from tensorflow_serving.apis import inference_pb2, prediction_log_pb2
from test_examples import REGRESS, classification, multi, regression


def records(path):
    """The PredictionLogs of a TFRecord file; checksums are the server's business when it reads."""
    content, at, found = path.read_bytes(), 0, []
    while at < len(content):
        length, = struct.unpack_from("<Q", content, at)
        log = prediction_log_pb2.PredictionLog()
        log.ParseFromString(content[at + 12 : at + 12 + length])
        found.append(log)
        at += 16 + length
    return found


@needs_tfs_models
class Record(ClientTest):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="kinglet-clients-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.file = self.folder / "record"

    def serve(self, *flags):
        config = self.folder / "models.config"
        config.write_text(model_config([("half_plus_two", "saved_model_half_plus_two_cpu", "")]))
        server = Server(f"--model_config_file={config}", *flags)
        self.addCleanup(server.stop)
        return server.wait_for("half_plus_two")

    def post(self, server, verb, body):
        url = f"http://127.0.0.1:{server.rest_port}/v1/models/half_plus_two:{verb}"
        with urllib.request.urlopen(url, json.dumps(body).encode(), timeout=TIMEOUT) as answer:
            return json.load(answer)

    def test_calls_of_every_kind_are_written_and_warm_the_next_version(self):
        server = self.serve(f"--record_requests={self.file}", "--record_sample=1")
        two = [example(x=2.0), example(x=4.0)]
        server.predict("half_plus_two", outputs=["y"], x=[[1.0]])
        self.post(server, "predict", {"instances": [[2.0]]})
        server.prediction.Classify(classification("half_plus_two", "classify_x_to_y", *two), timeout=TIMEOUT)
        self.post(server, "regress", {"signature_name": "regress_x_to_y", "examples": [{"x": 2.0}]})
        server.prediction.MultiInference(
            multi(("half_plus_two", "regress_x_to_y", REGRESS), examples=two), timeout=TIMEOUT
        )
        with self.assertRaises(Exception):
            server.predict("half_plus_two", x=[b"refused"])
        first, second, third, fourth, fifth = records(self.file)
        self.assertEqual(first.predict_log.request.model_spec, spec("half_plus_two", "serving_default"))
        self.assertEqual(list(first.predict_log.request.output_filter), ["y"])
        self.assertEqual(make_array(first.predict_log.request.inputs["x"]), [[1.0]])
        self.assertEqual(make_array(first.predict_log.response.outputs["y"]), [[2.5]])
        self.assertEqual(make_array(second.predict_log.response.outputs["y"]), [[3.0]])
        classes = third.classify_log
        self.assertEqual(list(classes.request.input.example_list.examples), two)
        self.assertEqual(classes.response.result.classifications[1].classes[0].score, 4.0)
        self.assertEqual(fourth.regress_log.response.result.regressions[0].value, 3.0)
        self.assertEqual(fourth.log_metadata.model_spec.version.value, 123)
        tasks = fifth.multi_inference_log
        self.assertEqual(tasks.request.tasks[0].method_name, REGRESS)
        self.assertIsInstance(tasks.response, inference_pb2.MultiInferenceResponse)
        self.assertEqual(len(tasks.response.results[0].regression_result.regressions), 2)

        # The file as it is warms up a version.
        version = self.folder / "m" / "1"
        shutil.copytree(MODELS / "saved_model_half_plus_two_cpu" / "00000123", version)
        (version / "assets.extra").mkdir(exist_ok=True)
        shutil.copy(self.file, version / "assets.extra" / "tf_serving_warmup_requests")
        warmed = Server("--model_name=m", f"--model_base_path={version.parent}")
        self.addCleanup(warmed.stop)
        warmed.wait_for("m")
        self.assertIn("5 warm-up requests", warmed.output())
        url = f"http://127.0.0.1:{warmed.rest_port}/monitoring/prometheus/metrics"
        page = urllib.request.urlopen(url, timeout=TIMEOUT).read().decode()
        self.assertRegex(page, r':tensorflow:serving:model_warmup_records_read\{model_path="[^"]*"\} 5\n')
        # Warm-up is no traffic.
        self.assertNotIn('request_count{model_name="m",status="OK"}', page)

    def test_a_share_of_none_writes_nothing_and_damaged_warm_up_refuses_the_version(self):
        server = self.serve(f"--record_requests={self.file}", "--record_sample=0")
        server.predict("half_plus_two", x=[[1.0]])
        self.assertEqual(records(self.file), [])
        version = self.folder / "m" / "1"
        shutil.copytree(MODELS / "saved_model_half_plus_two_cpu" / "00000123", version)
        (version / "assets.extra").mkdir(exist_ok=True)
        (version / "assets.extra" / "tf_serving_warmup_requests").write_bytes(b"no record")
        config = self.folder / "damaged.config"
        config.write_text(
            f'model_config_list {{ config {{ name: "m" base_path: "{version.parent}" model_platform: "tensorflow" }} }}'
        )
        damaged = Server(f"--model_config_file={config}", "--max_num_load_retries=0")
        self.addCleanup(damaged.stop)
        damaged.wait_for("m", state=50)
        one, = damaged.status("m").model_version_status
        self.assertEqual(one.status.error_code, 15)
        self.assertIn("Please verify your warmup data is in TFRecord format.", one.status.error_message)
