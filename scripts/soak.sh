#!/bin/sh
# Traffic from 32 clients for a minute while versions change every second, then 200 reloads with the
# resident set measured; see tests/clients/soak.py for the flags. Not part of CI, where the tests run
# the same for a few seconds.
set -eu
cd "$(dirname "$0")/.."
venv=${KINGLET_CLIENT_VENV:-.venv}
[ -x "$venv/bin/python" ] || scripts/client-venv.sh
exec "$venv/bin/python" tests/clients/soak.py "$@"
