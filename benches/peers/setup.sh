#!/bin/sh
# Makes benches/peers/.venv with the engines that kinglet is compared with, at the versions of requirements.txt.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
python3 -m venv "$here/.venv"
"$here/.venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
"$here/.venv/bin/python" "$here/worker.py" versions
