"""Rectified flow on CIFAR-10, unconditional; arXiv 2209.03003.

    python -m cm_jax.prepare --dataset=cifar10 --from=PATH
    python -m cm_jax.train --config=configs/cifar10_flow.py --workdir=runs/cifar10/flow

The network and the training of cifar10_cud_rk12.py, to be read beside it, not those of the rectified
flow paper: global batch 128, 500,000 steps = 64 million images; independent noise. Ours: not run.
"""

from configs.cifar10_cud_rk12 import flow_config


def get_config():
    return flow_config(name='flow')
