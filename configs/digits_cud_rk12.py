"""Catch-up distillation (CUD), RK12, on scikit-learn's digits; arXiv 2305.10769.

    python -m cm_jax.train --config=configs/digits_cud_rk12.py --workdir=runs/digits/cud_rk12

No teacher: one head. A prior over the noise is learned beside the network. Global batch 64, 1,000
steps = 64,000 images.

The paper's scaling of the skips (model.skip_scaling = 0.75: at noise, t = 1, half the weight to the
decoder's features) is left out, as one Euler step suffers for it in this small network, with whichever
objective. Measured, `fd_lenet_5k` at one step with it and without: CUD 125.8 and 82.2, rectified flow
131.6 and 95.4 (training seed 0, independent noise, 2 cores of an AMD EPYC).
"""

from configs.digits_edm import digits_config
from configs.digits_flow import rectified_flow

PRIOR = {'name': 'song_unet', 'channels': 8, 'channel_mult': (1, 1), 'num_blocks': 1}


def cud_config(order):
    """CUD on the digits with as many heads; the last of them samples, as in the paper."""
    settings = {'name': 'catch_up', 'order': order, 'head': order, 'steps': 16}
    settings |= {'step_size': 'uniform', 'share_dropout': False}
    c = rectified_flow(digits_config(), **settings)
    c.steps = 1000
    c.ema_rates = (0.995,)
    c.model.heads = order
    c.prior.update({**PRIOR, 'attn_resolutions': ()})
    c.optimizer.update({'name': 'adam', 'learning_rate': 3e-3, 'warmup_steps': 100})
    c.trajectory.every = 100
    c.sampling.update({'ema': '0.995', 'count': 50, 'every': 1000})
    return c


def get_config():
    return cud_config(1)
