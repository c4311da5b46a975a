"""Rectified flow on Fashion-MNIST; arXiv 2209.03003.

    python -m cm_jax.prepare --dataset=fashion_mnist
    python -m cm_jax.train --config=configs/fashion_mnist_flow.py --workdir=runs/fashion_mnist/flow

The global batch is 128: 20,000 steps see 2,560,000 images, as many as in fashion_mnist_edm.py.
Ours: not run to its end.
"""

from configs.common.fashion_mnist import flow_config


def get_config():
    return flow_config(name='flow')
