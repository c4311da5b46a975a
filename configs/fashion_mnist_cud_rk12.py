"""Catch-up distillation (CUD), RK12, on Fashion-MNIST, from data alone; arXiv 2305.10769.

    python -m cm_jax.prepare --dataset=fashion_mnist
    python -m cm_jax.train --config=configs/fashion_mnist_cud_rk12.py \
        --workdir=runs/fashion_mnist/cud_rk12

A prior over the noise is learned beside the network. Global batch 128, 20,000 steps = 2,560,000
images, as fashion_mnist_flow.py. Result: not run to its end.
"""

from configs.fashion_mnist_flow import flow_config


def get_config():
    settings = {'name': 'catch_up', 'order': 1, 'steps': 16, 'step_size': 'uniform'}
    c = flow_config(**settings, share_dropout=False)
    c.model.skip_scaling = 0.75
    c.prior.update({'name': 'song_unet', 'channels': 16, 'channel_mult': (1, 2, 2)})
    c.prior.update({'num_blocks': 1, 'attn_resolutions': (7,)})
    c.trajectory.every = 200
    return c
