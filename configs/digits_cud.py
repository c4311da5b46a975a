"""Catch-up distillation (CUD) on scikit-learn's digits, from data alone; arXiv 2305.10769.

    python -m cm_jax.train --config=configs/digits_cud.py:rk12 --workdir=runs/digits/cud_rk12

The variants are rk12 (the default), rk23 and rk34, for one, two and three heads; the last head
samples, as in the paper. There is no teacher. A prior over the noise is learned beside the network.
The global batch is 64: 1,000 steps see 64,000 images. The results are in the table of
`bash launch/study.sh digits-cud` in docs/results.md.

The paper's scaling of the skips (model.skip_scaling = 0.75: at noise, t = 1, half the weight goes
to the decoder's features) is left out, because one Euler step becomes worse with it in this small
network, whichever the objective. Measured by `--config.model.skip_scaling=0.75` for rk12 and for
digits_flow.py, and `evaluate --sampler=euler@1`: `fd_lenet_5k` 122.3 and 131.6 (training seed 0, a
core of an Intel Xeon), where docs/results.md has 97.2 and 99.9 without it, means over three seeds.
"""

from cm_jax.errors import check_name
from configs.common.digits import flow_config
from configs.common.flow import catch_up

VARIANTS = {'rk12': 1, 'rk23': 2, 'rk34': 3}  # the order, which is the number of heads
PRIOR = {'name': 'song_unet', 'channels': 8, 'channel_mult': (1, 1), 'num_blocks': 1}


def get_config(variant='rk12'):
    check_name('variant', variant, VARIANTS)
    order = VARIANTS[variant]
    c = flow_config(**catch_up(order), head=order)
    c.model.heads = order
    c.prior.update({**PRIOR, 'attn_resolutions': ()})
    c.trajectory.every = 100
    return c
