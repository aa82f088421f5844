#!/bin/sh
# Replays TensorFlow Serving's recorded REST answers and prints the counts, in default and in strict
# mode. The recordings and models are not part of the repository: $KINGLET_SHARED, default ../shared.
set -eu
cd "$(dirname "$0")/.."

shared=$(cd "${KINGLET_SHARED:-../shared}" 2>/dev/null && pwd || true)
if [ -z "$shared" ] || [ ! -d "$shared/conformance" ]; then
    echo "SKIPPED: acceptance; there are no recordings at ${KINGLET_SHARED:-../shared}" >&2
    exit 0
fi
. scripts/server.sh

# Least numbers of core cases that must pass; raise them as more do.
least_default=${KINGLET_LEAST_DEFAULT:-178}
least_strict=${KINGLET_LEAST_STRICT:-185}

python3 "$shared/conformance/make_config.py" >"$work/models.config"
echo 'prometheus_config { enable: true }' >"$work/monitoring.config"
ready_path=/v1/models/keras_mlp

# replay MODE LEAST FLAG...: one server with and one without the CORS flag, as recorded.
replay() {
    mode=$1 least=$2
    shift 2
    set -- --model_config_file="$work/models.config" --monitoring_config_file="$work/monitoring.config" \
        --allow_version_labels_for_unavailable_models=true --max_num_load_retries=0 "$@"
    start_server "$@"
    plain=127.0.0.1:$rest
    start_server "$@" --rest_api_enable_cors_support=true
    cors=127.0.0.1:$rest
    for level in core quirk runtime_text; do
        python3 "$shared/conformance/run_rest_cases.py" "$shared/conformance/rest_cases.json" \
            "$plain" "$cors" --level "$level" >"$work/$mode-$level" || true
        echo "$mode, $level: $(tail -n 1 "$work/$mode-$level")"
    done
    stop_servers
    grep '^FAIL' "$work/$mode-core" | cut -c 1-240 || true
    passed=$(tail -n 1 "$work/$mode-core" | cut -d / -f 1)
    if [ "$passed" -lt "$least" ]; then
        echo "$mode: $passed core cases pass, but $least must" >&2
        exit 1
    fi
}

replay default "$least_default"
replay strict "$least_strict" --tfs_strict_compat
