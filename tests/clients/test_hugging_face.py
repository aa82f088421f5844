"""A folder as Hugging Face's libraries write it: texts over REST and gRPC, vectors as `transformers` computes them."""

import json
import pathlib
import tempfile
import urllib.request

import numpy as np
from harness import ROOT, TIMEOUT, ClientTest, Server, make_array

FIXTURES = ROOT / "tests" / "fixtures" / "hugging_face"


class HuggingFace(ClientTest):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        (pathlib.Path(cls.folder.name) / "1").symlink_to(FIXTURES / "bert", target_is_directory=True)
        cls.server = Server("--model_name=bert", f"--model_base_path={cls.folder.name}").wait_for("bert")
        expected = json.loads((FIXTURES / "expected.json").read_text())
        cls.sentences = np.array(expected["sentences"], np.float32)
        cls.texts = expected["texts"][: len(cls.sentences)]

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()
        cls.folder.cleanup()

    def rest(self, **body):
        url = f"http://127.0.0.1:{self.server.rest_port}/v1/models/bert:predict"
        with urllib.request.urlopen(url, json.dumps(body).encode(), timeout=TIMEOUT) as answer:
            return json.load(answer)

    def test_texts_over_rest(self):
        found = self.rest(signature_name="embed", instances=self.texts)["predictions"]
        np.testing.assert_allclose(found, self.sentences, atol=1e-4)
        found = self.rest(signature_name="embed", inputs={"text": self.texts[:2]})["outputs"]
        np.testing.assert_allclose(found, self.sentences[:2], atol=1e-4)

    def test_texts_over_grpc(self):
        texts = [text.encode() for text in self.texts]
        answer = self.server.predict("bert", "embed", text=texts)
        found = make_array(answer.outputs["sentence_embedding"])
        np.testing.assert_allclose(found, self.sentences, atol=1e-4)

    def test_ids(self):
        row = {"input_ids": [2, 7, 3], "attention_mask": [1, 1, 1], "token_type_ids": [0, 0, 0]}
        (found,) = self.rest(instances=[row])["predictions"]
        self.assertEqual(set(found), {"last_hidden_state", "pooler_output", "sentence_embedding"})
        self.assertEqual(np.shape(found["last_hidden_state"]), (3, 16))
