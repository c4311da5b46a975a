"""Catch-up distillation (CUD), RK12, on CIFAR-10, unconditional, from data alone; arXiv 2305.10769.

    python -m cm_jax.prepare --dataset=cifar10 --from=PATH
    python -m cm_jax.train --config=configs/cifar10_cud_rk12.py --workdir=runs/cifar10/cud_rk12

The settings of the paper's code, but that images are not flipped: DDPM++, one head; a prior over
the noise, learned beside it; h ~ U(0, 1/16); global batch 128, 500,000 steps = 64 million images.
The paper's best FID-50k: 2.80 at 15 network evaluations, as many as heun@8 takes; 3.37 in one step,
after a further stage that is not part of this run. Ours: not run.
"""

from configs.cifar10_ect import cifar10_config
from configs.digits_flow import rectified_flow

PRIOR = {'name': 'song_unet', 'channels': 32, 'channel_mult': (2, 2, 2), 'num_blocks': 2}
PRIOR |= {'attn_resolutions': (16,), 'dropout': 0.13}


def flow_config(**objective):
    """What the runs on rectified flow share: CUD's training of DDPM++ on CIFAR-10."""
    c = rectified_flow(cifar10_config('ddpmpp_cifar10'), **objective)
    c.steps = 500_000
    c.batch_size = 128
    c.ema_rates = (0.9999,)
    c.model.update({'augment_dim': 0, 'dropout': 0.13, 'skip_scaling': 0.75})
    c.optimizer.update({'name': 'adam', 'learning_rate': 2e-4, 'warmup_steps': 5000})
    c.sampling.ema = '0.9999'
    return c


def cud_config(order):
    """CUD with as many heads; the last of them samples."""
    settings = {'name': 'catch_up', 'order': order, 'head': order, 'steps': 16}
    settings |= {'step_size': 'uniform', 'share_dropout': False}
    c = flow_config(**settings)
    c.model.heads = order
    c.prior.update(PRIOR)
    return c


def get_config():
    return cud_config(1)
