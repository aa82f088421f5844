"""The SSD detector tutorial against its export: twelve outputs, the misspelt signature, the picture."""

import pathlib
import tempfile
import unittest

import grpc
import numpy as np
from harness import SHARED, ClientTest, Server

try:
    import ssd_detector
except ImportError as error:
    ssd_detector, MISSING = None, str(error)

FOLDER = SHARED / "models" / "ssd"
PHOTO = SHARED / "models" / "images" / "kite_and_cold.jpg"


@unittest.skipUnless(ssd_detector, "the client draws with Pillow: pip install pillow")
@unittest.skipUnless(FOLDER.is_dir(), f"no model at {FOLDER}")
class Detector(ClientTest):
    @classmethod
    def setUpClass(cls):
        cls.server = Server("--model_name=commodity", f"--model_base_path={FOLDER / 'commodity'}")
        cls.server.wait_for("commodity")
        cls.oracle = np.load(FOLDER / "oracle.npz")

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    def test_outputs_are_those_of_tensorflow(self):
        predictions, locations = ssd_detector.detect(self.server.prediction, self.oracle["images"], "commodity")
        for kind, layers in [("predict", predictions), ("local", locations)]:
            for layer, found in enumerate(layers):
                expected = self.oracle[f"{kind}{layer}"]
                self.assertEqual(found.shape, expected.shape)
                np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)

    def test_a_misspelt_signature_is_not_found(self):
        request = ssd_detector.request_for(self.oracle["images"], "commodity", "detected_images")
        with self.assertRaises(grpc.RpcError) as caught:
            self.server.prediction.Predict(request)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.FAILED_PRECONDITION)
        self.assertEqual(caught.exception.details(), 'Serving signature key "detected_images" not found.')

    def test_a_photo_becomes_a_picture(self):
        """The export's weights are made up, so that what it finds is not looked at."""
        with tempfile.TemporaryDirectory() as folder:
            picture = pathlib.Path(folder) / "picture.png"
            classes, scores, boxes = ssd_detector.main(
                f"127.0.0.1:{self.server.port}", "commodity", PHOTO, picture, threshold=0.2
            )
            self.assertEqual(picture.read_bytes()[:8], b"\x89PNG\r\n\x1a\n")
        self.assertEqual(len(classes), len(boxes))
        self.assertTrue(np.all((boxes >= 0) & (boxes <= 1)) and np.all(scores > 0.2))


if __name__ == "__main__":
    unittest.main()
