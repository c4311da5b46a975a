"""Consistency training (CT) on Fashion-MNIST, from data alone; arXiv 2303.01469.

    python -m cm_jax.train --config=configs/fashion_mnist_ct.py --workdir=runs/fashion_mnist/ct

The global batch is 128: 20,000 steps see 2,560,000 images. The distance is the squared error where
the paper has LPIPS. Ours: not run to its end.
"""

from configs.common.fashion_mnist import fashion_mnist_config


def get_config():
    c = fashion_mnist_config()
    c.steps = 20_000
    c.ema_rates = (0.999, 0.9999)
    c.objective.update({'name': 'ct', 'total_steps': c.get_ref('steps'), 's0': 2, 's1': 150})
    c.objective.update({'mu0': 0.9, 'distance': 'l2', 'weight': 'uniform'})
    c.optimizer.update({'name': 'radam', 'learning_rate': 3e-4})
    c.trajectory.every = 200
    c.sampling.update({'sampler': 'onestep', 'ema': '0.999', 'count': 50, 'every': 1000})
    c.evaluation.samplers = ('onestep', 'multistep@80,0.8')
    return c
