"""The published guesslang model over the wire: Classify, REST classify and Predict against TensorFlow's answers.

$KINGLET_GUESSLANG names guesslang/data/model of the package guesslang 2.2.1 (`pip download --no-deps`); without it the
test is skipped. What TensorFlow says is recorded by tests/exports/guesslang.py.
"""

import json
import os
import pathlib
import unittest
import urllib.request

import numpy as np
from harness import ROOT, TIMEOUT, Server, make_array, make_tensor, spec
from tensorflow_serving.apis import classification_pb2, predict_pb2

MODEL = pathlib.Path(os.environ.get("KINGLET_GUESSLANG", "-"))
TOLERANCE = {"rtol": 1e-4, "atol": 1e-6}


@unittest.skipUnless(MODEL.is_dir(), "SKIPPED: $KINGLET_GUESSLANG names no folder")
class Guesslang(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.expected = json.loads((ROOT / "tests" / "fixtures" / "guesslang.json").read_text())
        cls.server = Server("--model_name=guesslang", f"--model_base_path={MODEL}").wait_for("guesslang")
        cls.addClassCleanup(cls.server.stop)

    def assert_scores(self, rows):
        """Rows of (label, score) in the model's order."""
        expected = self.expected
        self.assertEqual([[label for label, _ in row] for row in rows], [expected["classes"]] * len(rows))
        scores = [[score for _, score in row] for row in rows]
        np.testing.assert_allclose(scores, expected["classify_scores"], **TOLERANCE)

    def test_classify(self):
        for signature in ("", "classification"):
            request = classification_pb2.ClassificationRequest(model_spec=spec("guesslang", signature))
            for text in self.expected["samples"]:
                example = request.input.example_list.examples.add()
                example.features.feature["content"].bytes_list.value.append(text.encode())
            answer = self.server.prediction.Classify(request, timeout=TIMEOUT)
            self.assert_scores(
                [[(each.label, each.score) for each in row.classes] for row in answer.result.classifications]
            )

    def test_rest_classify(self):
        body = json.dumps({"examples": [{"content": text} for text in self.expected["samples"]]}).encode()
        url = f"http://127.0.0.1:{self.server.rest_port}/v1/models/guesslang:classify"
        with urllib.request.urlopen(urllib.request.Request(url, body), timeout=TIMEOUT) as answer:
            self.assert_scores(json.load(answer)["results"])

    def test_predict(self):
        request = predict_pb2.PredictRequest(model_spec=spec("guesslang", "predict"))
        texts = np.array([text.encode() for text in self.expected["samples"]], object)
        request.inputs["content"].CopyFrom(make_tensor(texts))
        answer = self.server.prediction.Predict(request, timeout=TIMEOUT)
        classes = [row[0].decode() for row in make_array(answer.outputs["classes"])]
        self.assertEqual(classes, self.expected["predict_classes"])
        np.testing.assert_allclose(
            make_array(answer.outputs["probabilities"]), self.expected["predict_probabilities"], **TOLERANCE
        )


if __name__ == "__main__":
    unittest.main()
