"""Catch-up distillation (CUD) on MNIST, from data alone; arXiv 2305.10769.

    python -m cm_jax.prepare --dataset=mnist --from=PATH
    python -m cm_jax.train --config=configs/mnist_cud.py:rk12 --workdir=runs/mnist/cud_rk12

The variants are rk12 (the default), rk23 and rk34, for one, two and three heads; the last head
samples. The settings are those of the paper's code: a prior over the noise is learned beside the
network by a network of the same sizes, h ~ U(0, 1/16), and the global batch is 256: 50,000 steps
see 12.8 million images, which are not flipped. (Its commands train for 50,000 steps and sample from
step 500,000; `--config.steps=500_000` is that length.) Products are float32's own; that code names
no precision. Scores are in the features of Fashion-MNIST's LeNet, because there is none of MNIST's.
Ours: not run.
"""

from cm_jax.errors import check_name
from configs.common.flow import catch_up, rectified_flow
from configs.common.mnist import NETWORK, mnist_config

VARIANTS = {'rk12': 1, 'rk23': 2, 'rk34': 3}  # the order, which is the number of heads


def get_config(variant='rk12'):
    check_name('variant', variant, VARIANTS)
    order = VARIANTS[variant]
    c = rectified_flow(mnist_config(), **catch_up(order), head=order)
    c.steps = 50_000
    c.ema_rates = (0.9999,)
    c.model.heads = order
    c.prior.update({**NETWORK, 'shared_norm': True, 'precision': 'highest'})
    c.optimizer.update({'name': 'adam', 'learning_rate': 3e-4, 'warmup_steps': 5000})
    c.sampling.update({'ema': '0.9999', 'every': 5000})
    return c
