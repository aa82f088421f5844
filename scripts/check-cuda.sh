#!/bin/bash
# Does the CUDA build compile? Takes the toolkit from the Python package index (1.2 GB) and about ten minutes; needs no
# device. Not part of .ci/run.
#
#   scripts/check-cuda.sh [FOLDER]     FOLDER keeps the toolkit for the next time; default: target-cuda/toolkit
#   KINGLET_CUDA_COMMAND="build --release" builds instead of checking
set -euo pipefail
cd "$(dirname "$0")/.."

folder=$(realpath -m "${1:-target-cuda/toolkit}")
packages=(nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-runtime==13.0.96
    nvidia-cuda-cccl==13.0.85 nvidia-cuda-nvrtc==13.0.88 nvidia-curand==10.4.0.35 nvidia-cublas==13.0.2.14)

if [ ! -x "$folder/home/bin/nvcc" ]; then
    mkdir -p "$folder/wheels"
    python3 -m pip download --quiet --no-deps --dest "$folder/wheels" "${packages[@]}"
    python3 - "$folder" <<'PYTHON'
import pathlib, sys, zipfile
folder = pathlib.Path(sys.argv[1])
for wheel in sorted((folder / "wheels").glob("*.whl")):
    zipfile.ZipFile(wheel).extractall(folder / "packages")
PYTHON
    toolkit=$folder/packages/nvidia/cu13
    chmod -R +x "$toolkit/bin" "$toolkit/nvvm/bin"
    mkdir -p "$folder/home/lib64/stubs"
    for part in bin include nvvm; do ln -sfn "$toolkit/$part" "$folder/home/$part"; done
    for library in "$toolkit"/lib/*; do
        name=$(basename "$library")
        ln -sf "$library" "$folder/home/lib64/$name"
        # The linker looks for the name without a version.
        case $name in *.so.*) ln -sf "$library" "$folder/home/lib64/${name%%.so.*}.so" ;; esac
    done
    # The driver's library: only its name is needed to link.
    cc -shared -Wl,-soname,libcuda.so.1 -o "$folder/home/lib64/stubs/libcuda.so" -x c /dev/null
fi

export CUDA_HOME=$folder/home CUDA_PATH=$folder/home PATH=$folder/home/bin:$PATH
export CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-87}
# Set RUSTFLAGS take the place of .cargo/config.toml's, which make other binaries static.
export RUSTFLAGS="-L native=$CUDA_HOME/lib64 -L native=$CUDA_HOME/lib64/stubs"
nvcc --version | tail -1
# shellcheck disable=SC2086
cargo ${KINGLET_CUDA_COMMAND:-check --lib} --features cuda --target-dir target-cuda
echo "the CUDA build compiles (CUDA_HOME=$CUDA_HOME CUDA_COMPUTE_CAP=$CUDA_COMPUTE_CAP RUSTFLAGS=\"$RUSTFLAGS\")"
