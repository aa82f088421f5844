#!/bin/sh
# Builds the release binary and runs all tests: Rust, ONNX's own node tests, TensorFlow Serving's Python client.
set -eu
cd "$(dirname "$0")/.."

cargo build --release
cargo test --quiet

venv=${KINGLET_CLIENT_VENV:-.venv}
scripts/client-venv.sh

# As large as the pinned package makes them, so they are written once per checkout.
nodes=target/onnx-nodes
if [ ! -e "$nodes/.done" ]; then
    "$venv/bin/python" -m pip --quiet --disable-pip-version-check install onnx==1.23.2
    "$venv/bin/python" scripts/onnx_node_tests.py "$nodes"
    touch "$nodes/.done"
fi
KINGLET_ONNX_NODES=$PWD/$nodes cargo test --quiet --test onnx_nodes -- --nocapture

"$venv/bin/python" -m unittest discover --start-directory tests/clients
