"""half_plus_two in Triton's Python backend, through the package nvidia-pytriton: REST_PORT GRPC_PORT METRICS_PORT."""

import sys

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig


@batch
def half_plus_two(x):
    return {"y": x / 2 + 2}


def main():
    rest, grpc, metrics = map(int, sys.argv[1:])
    config = TritonConfig(
        http_address="127.0.0.1", http_port=rest, grpc_address="127.0.0.1", grpc_port=grpc, metrics_port=metrics
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name="half_plus_two",
            infer_func=half_plus_two,
            inputs=[Tensor(name="x", dtype=np.float32, shape=(1,))],
            outputs=[Tensor(name="y", dtype=np.float32, shape=(1,))],
            config=ModelConfig(max_batch_size=64),
        )
        triton.serve()


if __name__ == "__main__":
    main()
