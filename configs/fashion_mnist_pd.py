"""Progressive distillation (PD) on Fashion-MNIST; arXiv 2202.00512.

    python -m cm_jax.train --config=configs/fashion_mnist_pd.py --workdir=runs/fashion_mnist/pd

It starts from the run of fashion_mnist_edm.py. The global batch is 128: 10,000 steps see 1,280,000
images, those of the teacher not counted. The 64 steps of the teacher become 32, 16, 8, 4, 2 and 1.
Ours: not run to its end.
"""

from configs.common.fashion_mnist import fashion_mnist_config


def get_config():
    c = fashion_mnist_config()
    c.steps = 10_000
    c.ema_rates = (0.999, 0.9999)
    c.objective.update({'name': 'pd', 'start_steps': 64, 'halve_every': 1667})
    c.objective.weight = 'truncated_snr'
    c.optimizer.update({'name': 'radam', 'learning_rate': 3e-4})
    c.init_from.update({'workdir': 'runs/fashion_mnist/edm_full', 'ema': '0.999'})
    c.trajectory.every = 200
    c.sampling.update({'sampler': 'ddim@1', 'ema': '0.999', 'count': 50, 'every': 1000})
    c.evaluation.samplers = ('ddim@1', 'ddim@2')
    return c
