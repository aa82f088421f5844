"""What is served from where: configuration files, labels, folders, readiness, refusals to start."""

import json
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

import grpc
from google.protobuf import text_format
from harness import (
    MODELS, TIMEOUT, ClientTest, Server, binary, free_port, make_tensor, model_config, needs_tfs_models, spec,
)
from tensorflow_serving.apis import get_model_status_pb2, model_management_pb2, predict_pb2
from tensorflow_serving.config import model_server_config_pb2

FAILED = grpc.StatusCode.FAILED_PRECONDITION
INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
State = get_model_status_pb2.ModelVersionStatus
TWO = ("half_plus_two", "saved_model_half_plus_two_cpu", "")
THREE = ("half_plus_three", "saved_model_half_plus_three", "")
VERSIONS = ("versions", "saved_model_half_plus_two_2_versions", "model_version_policy { all {} }")


def label(name, version):
    return f' version_labels {{ key: "{name}" value: {version} }}'


def get(server, path):
    """Status and body of a GET."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.rest_port}{path}", timeout=TIMEOUT) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


class Folder(ClientTest):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="kinglet-clients-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.file = self.folder / "models.config"

    def serve(self, *flags):
        server = Server(*flags, "--max_num_load_retries=0")
        self.addCleanup(server.stop)
        return server

    def serve_config(self, models, *flags):
        self.file.write_text(model_config(models))
        return self.serve(f"--model_config_file={self.file}", *flags)

    def until(self, holds, what):
        end = time.monotonic() + TIMEOUT
        while not holds():
            self.assertLess(time.monotonic(), end, what)
            time.sleep(0.05)

    def start_fails(self, *flags):
        """Exit code and output of a server that cannot start."""
        command = [binary(), "serve", f"--port={free_port()}", f"--rest_api_port={free_port()}", *flags]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        return ended.returncode, ended.stdout + ended.stderr


@needs_tfs_models
class Config(Folder):
    def test_good_bad_and_missing_models_start_and_the_reasons_are_named(self):
        bad = ("bad", "bad_half_plus_two", "")
        missing = ("missing", "no_such_folder", "")
        server = self.serve_config([bad, missing, TWO, THREE]).wait_for("half_plus_two", "half_plus_three")
        self.assert_array(server.predict("half_plus_two", x=[[1.0]]).outputs["y"], [[2.5]])
        self.assert_array(server.predict("half_plus_three", x=[1.0]).outputs["y"], [3.5])
        server.wait_for("bad", state=State.END)
        one, = server.status("bad").model_version_status
        self.assertIn("savedmodel", one.status.error_message.lower())
        self.assertNotEqual(one.status.error_code, 0)
        self.assertIn(one.status.error_message.split(":")[0], server.output())
        self.assertIn("no_such_folder", server.output())
        for model in ("bad", "missing"):
            text = self.refused(NOT_FOUND, lambda timeout: server.predict(model, x=[1.0]))
            self.assertEqual(text, f"Servable not found for request: Latest({model})")
        self.assertEqual(get(server, "/readyz")[0], 200)
        self.assertEqual(get(server, "/healthz")[0], 200)
        listed = {each["name"]: each for each in json.loads(get(server, "/v1/models")[1])["models"]}
        self.assertEqual(set(listed), {"bad", "missing", "half_plus_two", "half_plus_three"})
        self.assertEqual(listed["bad"]["model_version_status"][0]["state"], "END")
        self.assertIn("no_such_folder", listed["missing"]["error"])

    def test_readiness_without_a_model_that_answers(self):
        server = self.serve_config([("bad", "bad_half_plus_two", "")]).wait_for("bad", state=State.END)
        self.until(lambda: "being loaded" not in get(server, "/readyz")[1], "start-up ends")
        status, text = get(server, "/readyz")
        self.assertEqual(status, 503, text)
        self.assertEqual(get(server, "/healthz")[0], 200)

    def test_the_file_is_read_again(self):
        server = self.serve_config([TWO], "--model_config_file_poll_wait_seconds=1").wait_for(TWO[0])
        self.file.write_text(model_config([THREE]))
        server.wait_for(THREE[0]).wait_for(TWO[0], state=State.END)
        # A file with a mistake changes nothing.
        self.file.write_text("model_config_list { confg {} }")
        self.until(
            lambda: "Error parsing text-format tensorflow.serving.ModelServerConfig" in server.output(),
            "the mistake is logged",
        )
        self.assert_array(server.predict("half_plus_three", x=[1.0]).outputs["y"], [3.5])

    def test_sighup_reads_the_file_again(self):
        server = self.serve_config([TWO]).wait_for(TWO[0])
        self.file.write_text(model_config([TWO, THREE]))
        server.process.send_signal(signal.SIGHUP)
        server.wait_for(THREE[0])

    def test_every_legal_spelling_of_the_text_format(self):
        base = MODELS / "saved_model_half_plus_two_2_versions"
        self.file.write_text(
            f"""# comment
            model_config_list: {{
              config: {{
                name: 'v', base_path: "{base.parent}/" '{base.name}';
                model_platform: "tensor" "flow"
                model_version_policy: < specific: {{ versions: [123, 0x7c] }} >
                version_labels [{{ key: "a" value: 123 }}, {{ key: "b", value: 124 }}]
              }},
            }}"""
        )
        server = self.serve(
            f"--model_config_file={self.file}", "--allow_version_labels_for_unavailable_models"
        ).wait_for("v")
        for name, version in (("a", 123), ("b", 124)):
            self.until(lambda: self._answers(server, spec("v", version=version)), version)
            self.assertEqual(server.predict(spec("v", label=name), x=[[1.0]]).model_spec.version.value, version)

    @staticmethod
    def _answers(server, model):
        try:
            server.predict(model, x=[[1.0]])
        except grpc.RpcError:
            return False
        return True

    def test_policies(self):
        for policy, expected in [
            ("", [124]),
            ("model_version_policy { latest {} }", [124]),
            ("model_version_policy { latest { num_versions: 2 } }", [124, 123]),
            ("model_version_policy { all {} }", [124, 123]),
            ("model_version_policy { specific { versions: 123 versions: 9 } }", [123]),
        ]:
            with self.subTest(policy):
                server = self.serve_config([(VERSIONS[0], VERSIONS[1], policy)])
                available = lambda: [  # noqa: E731
                    each.version
                    for each in server.status("versions").model_version_status
                    if each.state == State.AVAILABLE
                ]
                server.wait_for("versions")
                self.until(lambda: available() == expected, policy)

    def test_mistakes_refuse_to_start_with_code_255(self):
        twice = model_config([TWO, TWO])
        platform = 'config { name: "m" base_path: "/m" model_platform: "%s" }'
        for text, expected in [
            (twice, "Illegal to list model half_plus_two multiple times in config list"),
            ("model_config_list { " + platform % "x" + " }", "Model m requests unsupported platform x"),
            ('model_config_list { config { name: "m" base_path: "/m" } }',
             "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
             "ModelServerConfig::model_platform, model name is m"),
            ('model_config_list { config { name: "m" base_path: "m" model_platform: "tensorflow" } }',
             "Expected model m to have an absolute path or URI; got base_path()=m"),
            ("nonsense", f"Invalid protobuf file: '{self.file}'"),
        ]:
            with self.subTest(expected):
                self.file.write_text(text)
                code, output = self.start_fails(f"--model_config_file={self.file}")
                self.assertEqual(code, 255, output)
                self.assertIn("Failed to start server. Error: ", output)
                self.assertIn(expected, output)
        code, output = self.start_fails("--tfs_strict_compat")
        self.assertEqual(code, 255)
        self.assertIn(
            "Both server_options.model_base_path and server_options.model_config_file are empty!", output
        )

    def test_one_model_that_cannot_load_ends_the_server(self):
        code, output = self.start_fails(
            "--model_name=m", f"--model_base_path={MODELS / 'bad_half_plus_two'}", "--max_num_load_retries=0"
        )
        self.assertEqual(code, 255, output)
        self.assertIn("1 servable(s) did not become available: {{name: m version: ", output)
        self.assertIn("} due to error: ", output)

    def test_an_empty_base_path_is_waited_for(self):
        (self.folder / "m").mkdir()
        server = self.serve(
            "--model_name=m", f"--model_base_path={self.folder / 'm'}", "--file_system_poll_wait_seconds=1"
        )
        self.until(lambda: "Did you forget to name your leaf directory as a number" in server.output(), "warned")
        shutil.copytree(MODELS / TWO[1] / "00000123", self.folder / "staging")
        (self.folder / "staging").rename(self.folder / "m" / "7")
        server.wait_for("m")
        self.assertEqual(server.predict("m", x=[[1.0]]).model_spec.version.value, 7)
        # And an emptied one unloads.
        shutil.rmtree(self.folder / "m" / "7")
        server.wait_for("m", state=State.END)

    def test_a_folder_of_models_and_a_model_without_a_version(self):
        shutil.copytree(MODELS / TWO[1], self.folder / "models" / "two")
        shutil.copytree(MODELS / THREE[1] / "00000123", self.folder / "models" / "three")
        server = self.serve(f"--models_dir={self.folder / 'models'}", "--file_system_poll_wait_seconds=1")
        server.wait_for("two", "three")
        self.assertEqual(server.predict("three", x=[1.0]).model_spec.version.value, 1)
        shutil.copytree(MODELS / TWO[1], self.folder / "staging")
        (self.folder / "staging").rename(self.folder / "models" / "later")
        server.wait_for("later")
        shutil.rmtree(self.folder / "models" / "two")
        server.wait_for("two", state=State.END)

    def test_broken_files_that_are_mended_load_without_waiting_for_the_next_try(self):
        shutil.copytree(MODELS / TWO[1], self.folder / "m")
        broken = self.folder / "m" / "00000123" / "saved_model.pb"
        content = broken.read_bytes()
        broken.write_bytes(content[:100])
        server = self.serve_config(
            [], "--file_system_poll_wait_seconds=1"
        )
        config = model_server_config_pb2.ModelServerConfig()
        config.model_config_list.config.add(
            name="m", base_path=str(self.folder / "m"), model_platform="tensorflow"
        )
        request = model_management_pb2.ReloadConfigRequest(config=config)
        text = self.refused(grpc.StatusCode.UNKNOWN, server.models.HandleReloadConfigRequest, request)
        self.assertRegex(text, r"^1 servable\(s\) did not become available: \{\{name: m version: 123\} due to error: ")
        broken.write_bytes(content)
        server.wait_for("m")


@needs_tfs_models
class Labels(Folder):
    def reload(self, server, *models):
        config = text_format.Parse(model_config(models), model_server_config_pb2.ModelServerConfig())
        request = model_management_pb2.ReloadConfigRequest(config=config)
        return server.models.HandleReloadConfigRequest(request, timeout=TIMEOUT)

    def labelled(self, *pairs):
        return (*VERSIONS[:2], VERSIONS[2] + "".join(label(*pair) for pair in pairs))

    def answering(self, server, name):
        return server.predict(spec("versions", label=name), x=[[1.0]]).model_spec.version.value

    def test_strict_servers_refuse_labels_of_what_is_not_loaded_yet(self):
        self.file.write_text(model_config([self.labelled(("stable", 123))]))
        code, output = self.start_fails(f"--model_config_file={self.file}", "--tfs_strict_compat")
        self.assertEqual(code, 255, output)
        self.assertIn(
            "Request to assign label to version 123 of model versions, which is not currently available for "
            "inference",
            output,
        )

    def test_labels_at_start_and_their_moves(self):
        server = self.serve_config([self.labelled(("stable", 123), ("canary", 124))]).wait_for("versions")
        self.until(lambda: len(server.status("versions").model_version_status) == 2, "both versions")
        self.until(
            lambda: all(each.state == State.AVAILABLE for each in server.status("versions").model_version_status),
            "both answer",
        )
        self.assertEqual((self.answering(server, "stable"), self.answering(server, "canary")), (123, 124))
        self.reload(server, self.labelled(("stable", 124)))
        self.assertEqual(self.answering(server, "stable"), 124)
        text = self.refused(INVALID, lambda timeout: self.answering(server, "canary"))
        self.assertEqual(text, "Unrecognized servable version label: canary")
        with self.assertRaises(grpc.RpcError) as caught:
            self.reload(server, self.labelled(("stable", 99)))
        self.assertEqual(caught.exception.code(), FAILED)
        self.assertEqual(
            caught.exception.details(),
            "Request to assign label to version 99 of model versions, which is not currently available for inference",
        )
        self.assertEqual(self.answering(server, "stable"), 124, "a refused configuration changes nothing")
        # Over REST too.
        status, body = get(server, "/v1/models/versions/labels/stable/metadata")
        self.assertEqual((status, json.loads(body)["model_spec"]["version"]), (200, "124"))


@needs_tfs_models
class Reload(Folder):
    def test_a_new_base_path_and_unknown_models(self):
        server = self.serve_config([TWO]).wait_for(TWO[0])
        moved = ("half_plus_two", "saved_model_half_plus_two_2_versions", "")
        config = text_format.Parse(model_config([moved]), model_server_config_pb2.ModelServerConfig())
        request = model_management_pb2.ReloadConfigRequest(config=config)
        server.models.HandleReloadConfigRequest(request, timeout=TIMEOUT)
        self.until(
            lambda: server.predict("half_plus_two", x=[[1.0]]).model_spec.version.value == 124, "the new path"
        )
        # An empty list unloads all.
        config.model_config_list.SetInParent()
        del config.model_config_list.config[:]
        request = model_management_pb2.ReloadConfigRequest(config=config)
        answer = server.models.HandleReloadConfigRequest(request, timeout=TIMEOUT)
        self.assertEqual(answer.status.error_code, 0)
        one = predict_pb2.PredictRequest(model_spec=spec("half_plus_two"))
        one.inputs["x"].CopyFrom(make_tensor([[1.0]]))

        def is_gone():
            try:
                server.prediction.Predict(one, timeout=TIMEOUT)
            except grpc.RpcError:
                return True
            return False

        self.until(is_gone, "the end of the last version")
        self.refused(NOT_FOUND, server.prediction.Predict, one)

    def test_counters_are_reported_on_demand(self):
        server = self.serve_config([TWO]).wait_for(TWO[0])
        config = text_format.Parse(model_config([TWO, THREE]), model_server_config_pb2.ModelServerConfig())
        name = "/tensorflow/serving/request_count"
        request = model_management_pb2.ReloadConfigRequest(config=config, metric_names=[name, "/no/such"])
        answer = server.models.HandleReloadConfigRequest(request, timeout=TIMEOUT)
        self.assertEqual([(each.name, each.int64_value_increase) for each in answer.metric], [(name, 0)])
