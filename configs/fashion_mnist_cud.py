"""Catch-up distillation (CUD), RK12, on Fashion-MNIST, from data alone; arXiv 2305.10769.

    python -m cm_jax.prepare --dataset=fashion_mnist
    python -m cm_jax.train --config=configs/fashion_mnist_cud.py --workdir=runs/fashion_mnist/cud

A prior over the noise is learned beside the network. The global batch is 128: 20,000 steps see
2,560,000 images, as many as in fashion_mnist_flow.py. Ours: not run to its end.
"""

from configs.common.fashion_mnist import flow_config
from configs.common.flow import catch_up


def get_config():
    c = flow_config(**catch_up(1))
    c.model.skip_scaling = 0.75
    c.prior.update({'name': 'song_unet', 'channels': 16, 'channel_mult': (1, 2, 2)})
    c.prior.update({'num_blocks': 1, 'attn_resolutions': (7,)})
    c.trajectory.every = 200
    return c
