#!/bin/sh
# Builds the release binary and runs all tests: Rust, then TensorFlow Serving's Python client.
set -eu
cd "$(dirname "$0")/.."

cargo build --release
cargo test --quiet --all-features

if [ -x scripts/client-venv.sh ]; then
    venv=${KINGLET_CLIENT_VENV:-.venv}
    scripts/client-venv.sh
    "$venv/bin/python" -m unittest discover --start-directory tests/clients
else
    echo "SKIPPED: the Python clients; scripts/client-venv.sh is missing" >&2
fi
