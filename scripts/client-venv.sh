#!/bin/sh
# Makes .venv with TensorFlow Serving's published Python client, for tests/clients.
#
# The client package asks for all of TensorFlow, yet needs nothing of it but its message modules.
# So it is installed without dependencies, and the modules (3 MB) are taken out of the
# tensorflow-cpu wheel (250 MB), which is downloaded for that and not kept. Does nothing when done.
set -eu
cd "$(dirname "$0")/.."

venv=${KINGLET_CLIENT_VENV:-.venv}
python=${PYTHON:-python3}
tensorflow=2.21.0

wanted=$(cat tests/clients/requirements.txt scripts/client-venv.sh | cksum | tr ' ' '-')
stamp=$venv/.clients-$wanted
[ -e "$stamp" ] && exit 0

[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
pip="$venv/bin/python -m pip --quiet --disable-pip-version-check"
$pip install -r tests/clients/requirements.txt
$pip install --no-deps "tensorflow-serving-api==$tensorflow"

wheel=$(mktemp -d)
trap 'rm -rf "$wheel"' EXIT
$pip download --no-deps --no-cache-dir --dest "$wheel" "tensorflow-cpu==$tensorflow"
"$venv/bin/python" - "$wheel"/*.whl <<'PYTHON'
import sys
import sysconfig
import zipfile

with zipfile.ZipFile(sys.argv[1]) as wheel:
    modules = [name for name in wheel.namelist() if name.endswith("_pb2.py")]
    wheel.extractall(sysconfig.get_path("purelib"), modules)
PYTHON
"$venv/bin/python" -c "from tensorflow_serving.apis import prediction_service_pb2_grpc"
touch "$stamp"
