"""Consistency distillation (CD) on Fashion-MNIST; arXiv 2303.01469.

    python -m cm_jax.train --config=configs/fashion_mnist_cd.py --workdir=runs/fashion_mnist/cd

It starts and learns from the run of fashion_mnist_edm.py. The global batch is 128: 10,000 steps see
1,280,000 images, those of the teacher not counted. There are 18 levels, the solver is Heun's, and
the distance is the squared error where the paper has LPIPS. Ours: not run to its end.
"""

from configs.common.fashion_mnist import fashion_mnist_config


def get_config():
    c = fashion_mnist_config()
    c.steps = 10_000
    c.ema_rates = (0.999, 0.9999)
    c.objective.update({'name': 'cd', 'levels': 18, 'solver': 'heun', 'target_ema': 0.0})
    c.objective.update({'distance': 'l2', 'weight': 'uniform'})
    c.optimizer.update({'name': 'radam', 'learning_rate': 3e-4})
    c.init_from.update({'workdir': 'runs/fashion_mnist/edm_full', 'ema': '0.999'})
    c.teacher.update({'workdir': 'runs/fashion_mnist/edm_full', 'ema': '0.999'})
    c.trajectory.every = 200
    c.sampling.update({'sampler': 'onestep', 'ema': '0.999', 'count': 50, 'every': 1000})
    c.evaluation.samplers = ('onestep', 'multistep@80,0.8')
    return c
