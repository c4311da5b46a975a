"""Consistency training (CT) on scikit-learn's digits, from data alone; arXiv 2303.01469.

    python -m cm_jax.train --config=configs/digits_ct.py --workdir=runs/digits/ct

The global batch is 64: 1,000 steps see 64,000 images. The distance is the squared error where the
paper has LPIPS. The result is in the table of `bash launch/study.sh digits` in docs/results.md.

The schedules are shorter than the paper's, as the run is. What is learned at low noise reaches high
noise one level at a time, with a target that lags by 1/(1 - mu) steps. The paper's s1 = 150 and
mu0 = 0.9, made for 800,000 steps, therefore leave grey images: with `--config.objective.s1=150
--config.objective.mu0=0.9`, fd_lenet_5k is 1876 in one step (training seed 0, 2 CPU cores).
"""

from configs.common.digits import digits_config


def get_config():
    c = digits_config()
    c.steps = 1000
    c.ema_rates = (0.99,)
    c.objective.update({'name': 'ct', 'total_steps': c.get_ref('steps'), 's0': 2, 's1': 18})
    c.objective.update({'mu0': 0.1, 'distance': 'l2', 'weight': 'uniform'})
    c.optimizer.update({'name': 'radam', 'learning_rate': 1e-3})
    c.trajectory.every = 100
    c.sampling.update({'sampler': 'onestep', 'ema': '0.99', 'count': 50, 'every': 500})
    c.evaluation.samplers = ('onestep', 'multistep@80,0.8')
    return c
