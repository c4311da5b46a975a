"""Easy consistency tuning (ECT) on Fashion-MNIST; arXiv 2406.14548.

    python -m cm_jax.train --config=configs/fashion_mnist_ect.py:full \\
        --workdir=runs/fashion_mnist/ect_full

Each variant starts from the run of that variant of fashion_mnist_edm.py, with its network:

    full   the default: the global batch is 128, and 10,000 steps see 1,280,000 images in eight
           stages (q = 2)
    small  the global batch is 64, and 1,600 steps see 102,400 images in six stages

The images of the teacher are not counted. Ours: `full` not run to its end; the best average of
`small` has fd_lenet 14.78 ± 1.06 in one step (docs/results.md).
"""

from cm_jax.errors import check_name
from configs.common.fashion_mnist import fashion_mnist_config

VARIANTS = ('full', 'small')


def get_config(variant='full'):
    check_name('variant', variant, VARIANTS)
    c = fashion_mnist_config(small=variant == 'small')
    c.steps = 10_000
    c.ema_rates = (0.99, 0.999, 0.9999)
    c.objective.update({'name': 'ect', 'p_mean': -1.1, 'p_std': 2.0, 'q': 2.0, 'k': 8.0, 'b': 1.0})
    c.objective.update({'double_every': 1250, 'c': 0.0, 'weight': 'inverse_gap'})
    c.optimizer.update({'name': 'radam', 'learning_rate': 3e-4})
    c.init_from.update({'workdir': 'runs/fashion_mnist/edm_full', 'ema': '0.999'})
    c.trajectory.every = 100
    c.sampling.update({'sampler': 'onestep', 'ema': '0.999', 'count': 50, 'every': 1000})
    c.evaluation.samplers = ('onestep', 'multistep@80,0.8')
    if variant == 'small':
        c.steps = 1600
        c.batch_size = 64
        c.ema_rates = (0.99, 0.997)
        c.objective.double_every = 270
        c.optimizer.learning_rate = 7e-4
        c.init_from.update({'workdir': 'runs/fashion_mnist/edm_small', 'ema': '0.998'})
        c.trajectory.every = 32
        c.sampling.ema = '0.99'
    return c
