"""EDM diffusion teacher on scikit-learn's digits; arXiv 2206.00364.

    python -m cm_jax.train --config=configs/digits_edm.py --workdir=runs/digits/edm

The global batch is 64: 1,000 steps see 64,000 images. The result is in the table of
`bash launch/study.sh digits` in docs/results.md.
"""

from configs.common.digits import digits_config


def get_config():
    c = digits_config()
    c.steps = 1000
    c.ema_rates = (0.995,)
    c.objective.update({'name': 'edm', 'p_mean': -1.2, 'p_std': 1.2})
    c.optimizer.update({'name': 'adam', 'learning_rate': 3e-3, 'warmup_steps': 100})
    c.sampling.update({'sampler': 'heun@18', 'ema': '0.995', 'count': 50, 'every': 1000})
    c.evaluation.samplers = ('heun@18', 'onestep')
    return c
