"""Rectified flow on scikit-learn's digits; arXiv 2209.03003.

    python -m cm_jax.train --config=configs/digits_flow.py --workdir=runs/digits/flow

The diffusion teacher on the process of digits_cud_rk12.py, and the flow beside which that is read.
Global batch 64, 1,000 steps = 64,000 images.
"""

from ml_collections import ConfigDict

from configs.digits_edm import digits_config


def rectified_flow(c, **objective):
    """Moves a config to rectified flow, with this objective and its samplers."""
    c.process.update({'name': 'rf', 't_min': 1e-5, 't_max': 1.0})
    c.objective = ConfigDict(objective)
    c.sampling.sampler = 'euler@16'
    c.evaluation.samplers = ('euler@16', 'heun@8', 'euler@4', 'onestep')
    return c


def get_config():
    c = rectified_flow(digits_config(), name='flow')
    c.steps = 1000
    c.ema_rates = (0.995,)
    c.optimizer.update({'name': 'adam', 'learning_rate': 3e-3, 'warmup_steps': 100})
    c.sampling.update({'ema': '0.995', 'count': 50, 'every': 1000})
    return c
