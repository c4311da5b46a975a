"""Consistency training (CT) on scikit-learn's digits, from data alone; arXiv 2303.01469.

    python -m cm_jax.train --config=configs/digits_ct.py --workdir=runs/digits/ct

Global batch 64, 1,000 steps = 64,000 images; squared error where the paper has LPIPS. Result: the table
of `bash launch/study.sh digits` in the README.
"""

from configs.digits_edm import digits_config


def get_config():
    c = digits_config()
    c.steps = 1000
    c.ema_rates = (0.99,)
    c.objective.update({'name': 'ct', 'total_steps': c.get_ref('steps'), 's0': 2, 's1': 150})
    c.objective.update({'mu0': 0.9, 'distance': 'l2', 'weight': 'uniform'})
    c.optimizer.update({'name': 'radam', 'learning_rate': 1e-3})
    c.trajectory.every = 100
    c.sampling.update({'sampler': 'onestep', 'ema': '0.99', 'count': 50, 'every': 500})
    c.evaluation.samplers = ('onestep', 'multistep@80,0.8')
    return c
