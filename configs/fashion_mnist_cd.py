"""Consistency distillation (CD) on Fashion-MNIST, from the teacher of fashion_mnist_edm.py;
arXiv 2303.01469.

    python -m cm_jax.train --config=configs/fashion_mnist_cd.py --workdir=runs/fashion_mnist/cd

Global batch 128, 10,000 steps = 1,280,000 images, the teacher's not counted;
18 levels, Heun, squared error where the paper has LPIPS. Result: not
run to its end.
"""

from configs.fashion_mnist_edm import fashion_mnist_config


def get_config():
    c = fashion_mnist_config()
    c.steps = 10_000
    c.ema_rates = (0.999, 0.9999)
    c.objective.update({'name': 'cd', 'levels': 18, 'solver': 'heun', 'target_ema': 0.0})
    c.objective.update({'distance': 'l2', 'weight': 'uniform'})
    c.optimizer.update({'name': 'radam', 'learning_rate': 3e-4})
    c.init_from.update({'workdir': 'runs/fashion_mnist/teacher', 'ema': '0.999'})
    c.teacher.update({'workdir': 'runs/fashion_mnist/teacher', 'ema': '0.999'})
    c.trajectory.every = 200
    c.sampling.update({'sampler': 'onestep', 'ema': '0.999', 'count': 50, 'every': 1000})
    c.evaluation.samplers = ('onestep', 'multistep@80,0.8')
    return c
