"""Improved consistency training (iCT) on Fashion-MNIST, from data alone; arXiv 2310.14189.

    python -m cm_jax.train --config=configs/fashion_mnist_ict.py --workdir=runs/fashion_mnist/ict

The global batch is 128: 20,000 steps see 2,560,000 images, in eight stages from 10 to 1280 gaps.
Ours: not run to its end.
"""

from configs.common.fashion_mnist import fashion_mnist_config


def get_config():
    c = fashion_mnist_config()
    c.steps = 20_000
    c.ema_rates = (0.999, 0.9999)
    c.objective.update({'name': 'ict', 'total_steps': c.get_ref('steps'), 's0': 10, 's1': 1280})
    c.objective.update({'p_mean': -1.1, 'p_std': 2.0, 'weight': 'inverse_gap'})
    c.optimizer.update({'name': 'radam', 'learning_rate': 3e-4})
    c.trajectory.every = 200
    c.sampling.update({'sampler': 'onestep', 'ema': '0.999', 'count': 50, 'every': 1000})
    c.evaluation.samplers = ('onestep', 'multistep@80,0.8')
    return c
