"""Versions that come and go under traffic, and flags that change what answers look like."""

import os
import pathlib
import shutil
import tempfile
import time

import grpc
import numpy as np
import soak
from harness import ClientTest, Server, needs_tfs_models, spec

CLIENTS = 32
SECONDS = float(os.environ.get("KINGLET_SWAP_SECONDS", 4))
RELOADS = int(os.environ.get("KINGLET_RELOADS", 12))


@needs_tfs_models
class Versions(ClientTest):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="kinglet-clients-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        (self.folder / "m").mkdir()

    def publish(self, version):
        soak.publish(self.folder, version)

    def serve(self, *flags):
        server = Server("--model_name=m", f"--model_base_path={self.folder / 'm'}", *flags)
        self.addCleanup(server.stop)
        return server.wait_for("m")

    def test_swaps_lose_no_request(self):
        calls, seen, published = soak.swaps(SECONDS, CLIENTS)
        self.assertGreaterEqual(len(seen), 3, f"{calls} calls saw versions {seen} of {published}")

    def test_swaps_of_batched_models_lose_no_request(self):
        calls, seen, published = soak.swaps(SECONDS, CLIENTS, "--enable_batching")
        self.assertGreaterEqual(len(seen), 2, f"{calls} calls saw versions {seen} of {published}")

    def test_reloads_give_memory_back(self):
        sizes = soak.reloads(RELOADS)
        self.assertLess(soak.growth(sizes), soak.TOLERATED_MIB, sizes)

    def test_an_old_version_is_gone_when_the_new_one_answers(self):
        self.publish(1)
        server = self.serve("--file_system_poll_wait_seconds=1")
        self.publish(2)
        end = time.monotonic() + 30
        while server.predict("m", x=[[1.0]]).model_spec.version.value != 2:
            self.assertLess(time.monotonic(), end)
            time.sleep(0.05)
        while True:
            try:
                server.predict(spec("m", version=1), x=[[1.0]])
            except grpc.RpcError as error:
                self.assertEqual(error.code(), grpc.StatusCode.NOT_FOUND)
                self.assertEqual(error.details(), "Servable not found for request: Specific(m, 1)")
                break
            self.assertLess(time.monotonic(), end)
            time.sleep(0.05)

    def test_answers_as_tensor_content(self):
        self.publish(1)
        server = self.serve("--enable_serialization_as_tensor_content=true")
        output = server.predict("m", x=[[2.0], [4.0]]).outputs["y"]
        self.assertEqual(output.tensor_content, np.array([3.0, 4.0], "<f4").tobytes())
        self.assertFalse(output.float_val)
