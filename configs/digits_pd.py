"""Progressive distillation (PD) on scikit-learn's digits; arXiv 2202.00512.

    python -m cm_jax.train --config=configs/digits_pd.py --workdir=runs/digits/pd

It starts from the run of digits_edm.py; --config.init_from.workdir names another. The global batch
is 64: 1,000 steps see 64,000 images, those of the teacher not counted. The 32 steps of the teacher
become 16, 8, 4, 2 and 1, with 200 training steps for each. The result is in the table of
`bash launch/study.sh digits` in docs/results.md.
"""

from configs.common.digits import digits_config


def get_config():
    c = digits_config()
    c.steps = 1000
    c.ema_rates = (0.99,)
    c.objective.update({'name': 'pd', 'start_steps': 32, 'halve_every': 200})
    c.objective.weight = 'truncated_snr'
    c.optimizer.update({'name': 'radam', 'learning_rate': 1e-3})
    c.init_from.update({'workdir': 'runs/digits/edm', 'ema': '0.995'})
    c.trajectory.every = 100
    c.sampling.update({'sampler': 'ddim@1', 'ema': '0.99', 'count': 50, 'every': 500})
    c.evaluation.samplers = ('ddim@1', 'ddim@2')
    return c
