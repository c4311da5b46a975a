"""EDM diffusion teacher on Fashion-MNIST; arXiv 2206.00364.

    python -m cm_jax.prepare --dataset=fashion_mnist
    python -m cm_jax.train --config=configs/fashion_mnist_edm.py:full \\
        --workdir=runs/fashion_mnist/edm_full

The variants differ in the network and in how long it is trained:

    full   the default: 1,259,745 parameters; the global batch is 128, and 20,000 steps see
           2,560,000 images
    small  308,721 parameters, 16 channels and no attention; the global batch is 64, and 2,000
           steps see 128,000 images

Ours: `full` not run to its end; `small` has fd_lenet 13.28 ± 1.07 by heun@18 (docs/results.md).
"""

from cm_jax.errors import check_name
from configs.common.fashion_mnist import fashion_mnist_config

VARIANTS = ('full', 'small')


def get_config(variant='full'):
    check_name('variant', variant, VARIANTS)
    c = fashion_mnist_config(small=variant == 'small')
    c.steps = 20_000
    c.ema_rates = (0.999,)
    c.objective.update({'name': 'edm', 'p_mean': -1.2, 'p_std': 1.2})
    c.optimizer.update({'name': 'adam', 'learning_rate': 1e-3, 'warmup_steps': 500})
    c.sampling.update({'sampler': 'heun@18', 'ema': '0.999', 'count': 50, 'every': 2000})
    c.evaluation.samplers = ('heun@18', 'onestep')
    if variant == 'small':
        c.steps = 2000
        c.batch_size = 64
        c.ema_rates = (0.998,)
        c.optimizer.update({'learning_rate': 2e-3, 'warmup_steps': 200})
        c.sampling.ema = '0.998'
    return c
