#!/bin/sh
# The first calls of the README, byte by byte: on the built-in half_plus_three and, where
# $KINGLET_SHARED (default ../shared) has it, on TensorFlow Serving's own folder of that name.
set -eu
cd "$(dirname "$0")/.."
. scripts/server.sh

failures=0
expect() {
    name=$1 wanted=$2
    shift 2
    got=$(curl --silent --show-error --max-time 10 --write-out '\n%{http_code}' "$@")
    if [ "$got" = "$wanted" ]; then
        echo "ok      $name"
    else
        failures=$((failures + 1))
        printf 'FAILED  %s\n  wanted: %s\n  got:    %s\n' "$name" "$wanted" "$got"
    fi
}

first_calls() {
    models=http://127.0.0.1:$rest/v1/models
    expect "$1: status" '{
 "model_version_status": [
  {
   "version": "123",
   "state": "AVAILABLE",
   "status": {
    "error_code": "OK",
    "error_message": ""
   }
  }
 ]
}

200' "$models/half_plus_three"
    expect "$1: predict" '{
    "predictions": [3.5, 4.0, 5.5
    ]
}
200' -d '{"instances": [1.0,2.0,5.0]}' "$models/half_plus_three:predict"
    expect "$1: regress" '{
    "results": [3.5, 4.0]
}
200' -d '{"signature_name": "tensorflow/serving/regress", "examples": [{"x": 1.0}, {"x": 2.0}]}' \
        "$models/half_plus_three:regress"
    expect "$1: unknown model" '{
    "error": "Servable not found for request: Latest(half)"
}
404' -d '{"instances": [1.0,2.0,5.0]}' "$models/half:predict"
}

ready_path=/v1/models/half_plus_three
start_server
first_calls "built in"

folder=${KINGLET_SHARED:-../shared}/models/tfs/saved_model_half_plus_three
if [ -d "$folder" ]; then
    folder=$(cd "$folder" && pwd)
    stop_servers
    start_server --model_name=half_plus_three --model_base_path="$folder"
    first_calls "TensorFlow Serving's folder"
else
    echo "SKIPPED: TensorFlow Serving's folder; there is no $folder" >&2
fi
[ "$failures" -eq 0 ]
