"""What is served: GetModelMetadata, GetModelStatus, HandleReloadConfigRequest."""

import shutil
import tempfile

import grpc
from google.protobuf import text_format
from harness import MODELS, TIMEOUT, ClientTest, Server, model_config, needs_tfs_models, spec, tfs_server
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_management_pb2
from tensorflow_serving.config import model_server_config_pb2

INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
State = get_model_status_pb2.ModelVersionStatus


def metadata_request(model, *fields, **version):
    return get_model_metadata_pb2.GetModelMetadataRequest(
        model_spec=spec(model, **version), metadata_field=fields
    )


@needs_tfs_models
class Metadata(ClientTest):
    def test_signatures_are_those_of_the_file(self):
        for model, path in [
            ("half_plus_two", "saved_model_half_plus_two_cpu/00000123"),
            ("half_plus_two_tf2", "saved_model_half_plus_two_tf2_cpu/00000123"),
            ("classify_labels", "synthetic/classify_labels/1"),
        ]:
            with self.subTest(model):
                saved = saved_model_pb2.SavedModel()
                saved.ParseFromString((MODELS / path / "saved_model.pb").read_bytes())
                answer = tfs_server().prediction.GetModelMetadata(
                    metadata_request(model, "signature_def"), timeout=TIMEOUT
                )
                packed = answer.metadata["signature_def"]
                self.assertEqual(
                    packed.type_url, "type.googleapis.com/tensorflow.serving.SignatureDefMap"
                )
                signatures = get_model_metadata_pb2.SignatureDefMap()
                self.assertTrue(packed.Unpack(signatures))
                expected = saved.meta_graphs[0].signature_def
                self.assertEqual(dict(signatures.signature_def), dict(expected))
                version = int(path.rsplit("/", 1)[1])
                self.assertEqual(answer.model_spec, spec(model, version=version))

    def test_refusals(self):
        call = tfs_server().prediction.GetModelMetadata
        for request, code, text in [
            (get_model_metadata_pb2.GetModelMetadataRequest(), INVALID, "Missing ModelSpec"),
            (metadata_request("half_plus_two"), INVALID,
             "GetModelMetadataRequest must specify at least one metadata_field"),
            (metadata_request("half_plus_two", "init"), INVALID, "Metadata field init is not supported"),
            (metadata_request("none", "signature_def"), NOT_FOUND,
             "Servable not found for request: Latest(none)"),
            (metadata_request("half_plus_two", "signature_def", label="L"), INVALID,
             "Unrecognized servable version label: L"),
        ]:
            with self.subTest(text):
                self.assertEqual(self.refused(code, call, request), text)


@needs_tfs_models
class Status(ClientTest):
    def test_versions_in_descending_order(self):
        for version in ({}, {"label": "stable"}):
            answer = tfs_server().status("versions", **version)
            found = [(each.version, each.state) for each in answer.model_version_status]
            self.assertEqual(found, [(124, State.AVAILABLE), (123, State.AVAILABLE)])
        one, = tfs_server().status("versions", version=123).model_version_status
        self.assertEqual((one.version, one.status.error_code, one.status.error_message), (123, 0, ""))

    def test_a_model_that_cannot_load_says_why(self):
        tfs_server().wait_for("bad", state=State.END)
        one, = tfs_server().status("bad").model_version_status
        self.assertNotEqual(one.status.error_code, 0)
        self.assertTrue(one.status.error_message)

    def test_refusals(self):
        def ask(**version):
            request = get_model_status_pb2.GetModelStatusRequest(model_spec=spec("none", **version))
            return self.refused(NOT_FOUND, tfs_server().models.GetModelStatus, request)

        self.assertEqual(ask(), "Could not find any versions of model none")
        self.assertEqual(ask(version=99), "Could not find version 99 of model none")
        empty = get_model_status_pb2.GetModelStatusRequest()
        text = self.refused(INVALID, tfs_server().models.GetModelStatus, empty)
        self.assertEqual(text, "Missing ModelSpec")


@needs_tfs_models
class Reload(ClientTest):
    def setUp(self):
        folder = tempfile.mkdtemp(prefix="kinglet-clients-")
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        file = folder + "/models.config"
        with open(file, "w") as config:
            config.write(model_config([("half_plus_two", "saved_model_half_plus_two_cpu", "")]))
        self.server = Server(f"--model_config_file={file}", "--max_num_load_retries=0")
        self.addCleanup(self.server.stop)
        self.server.wait_for("half_plus_two")

    def reload(self, models):
        config = text_format.Parse(model_config(models), model_server_config_pb2.ModelServerConfig())
        request = model_management_pb2.ReloadConfigRequest(config=config)
        return self.server.models.HandleReloadConfigRequest(request, timeout=TIMEOUT)

    def test_models_come_and_go(self):
        two = ("half_plus_two", "saved_model_half_plus_two_cpu", "")
        three = ("half_plus_three", "saved_model_half_plus_three", "")
        answer = self.reload([two, three])
        self.assertEqual((answer.status.error_code, answer.status.error_message), (0, ""))
        # The answer comes when the new models do.
        self.assert_array(self.server.predict("half_plus_three", x=[1.0]).outputs["y"], [3.5])
        self.assert_array(self.server.predict("half_plus_two", x=[[1.0]]).outputs["y"], [[2.5]])
        self.reload([three])
        self.server.wait_for("half_plus_two", state=State.END)
        self.refused(NOT_FOUND, lambda timeout: self.server.predict("half_plus_two", x=[[1.0]]))

    def test_labels_of_available_versions(self):
        versions = ("v", "saved_model_half_plus_two_2_versions", "model_version_policy { all {} }")
        self.reload([versions])
        labelled = versions[2] + ' version_labels { key: "stable" value: 123 }'
        self.reload([(*versions[:2], labelled)])
        answered = self.server.predict(spec("v", label="stable"), x=[[1.0]]).model_spec
        self.assertEqual(answered.version.value, 123)

    def test_refusals_change_nothing(self):
        with self.assertRaises(grpc.RpcError) as caught:
            two = ("half_plus_two", "saved_model_half_plus_two_cpu", "")
            self.reload([two, two])
        self.assertEqual(caught.exception.code(), INVALID)
        text = self.refused(
            INVALID,
            self.server.models.HandleReloadConfigRequest,
            model_management_pb2.ReloadConfigRequest(),
        )
        self.assertEqual(
            text,
            "ServerModelConfig type not supported by HandleReloadConfigRequest. "
            "Only ModelConfigList is currently supported",
        )
        self.assert_array(self.server.predict("half_plus_two", x=[[1.0]]).outputs["y"], [[2.5]])
