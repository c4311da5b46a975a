"""Catch-up distillation (CUD) on CIFAR-10, unconditional, from data alone; arXiv 2305.10769.

    python -m cm_jax.prepare --dataset=cifar10 --from=PATH
    python -m cm_jax.train --config=configs/cifar10_cud.py:rk12 --workdir=runs/cifar10/cud_rk12

The variants are rk12 (the default), rk23 and rk34, for one, two and three heads; the last head
samples. The settings are those of the paper's code: the network is DDPM++, a prior over the noise
is learned beside it, h ~ U(0, 1/16), images are flipped at random, and the global batch is 128:
500,000 steps see 64 million images. Products are float32's own; that code names no precision.
The paper's best FID-50k: 2.80 at 15 network evaluations, as many as heun@8 takes; 3.37 in one step,
after a further stage that is not part of this run. Ours: not run.
"""

from cm_jax.errors import check_name
from configs.common.cifar10 import flow_config
from configs.common.flow import catch_up

VARIANTS = {'rk12': 1, 'rk23': 2, 'rk34': 3}  # the order, which is the number of heads
PRIOR = {'name': 'song_unet', 'channels': 32, 'channel_mult': (2, 2, 2), 'num_blocks': 2}
PRIOR |= {'attn_resolutions': (16,), 'dropout': 0.13, 'shared_norm': True, 'precision': 'highest'}


def get_config(variant='rk12'):
    check_name('variant', variant, VARIANTS)
    order = VARIANTS[variant]
    c = flow_config(**catch_up(order), head=order)
    c.model.heads = order
    c.prior.update(PRIOR)
    return c
