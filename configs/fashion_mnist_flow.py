"""Rectified flow on Fashion-MNIST; arXiv 2209.03003.

    python -m cm_jax.prepare --dataset=fashion_mnist
    python -m cm_jax.train --config=configs/fashion_mnist_flow.py --workdir=runs/fashion_mnist/flow

Global batch 128, 20,000 steps = 2,560,000 images, as fashion_mnist_edm.py. Result: not run to its end.
"""

from configs.digits_flow import rectified_flow
from configs.fashion_mnist_edm import fashion_mnist_config


def flow_config(**objective):
    """What the runs on rectified flow share."""
    c = rectified_flow(fashion_mnist_config(), **objective)
    c.steps = 20_000
    c.ema_rates = (0.999,)
    c.optimizer.update({'name': 'adam', 'learning_rate': 1e-3, 'warmup_steps': 500})
    c.sampling.update({'ema': '0.999', 'count': 50, 'every': 2000})
    return c


def get_config():
    return flow_config(name='flow')
