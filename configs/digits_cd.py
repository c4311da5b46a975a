"""Consistency distillation (CD) on scikit-learn's digits; arXiv 2303.01469.

    python -m cm_jax.train --config=configs/digits_cd.py --workdir=runs/digits/cd

It starts and learns from the run of digits_edm.py; --config.init_from.workdir and
--config.teacher.workdir name another. The global batch is 64: 1,000 steps see 64,000 images, those
of the teacher not counted. There are 18 levels, the solver is Heun's, and the distance is the
squared error where the paper has LPIPS. The result is in the table of `bash launch/study.sh digits`
in docs/results.md.
"""

from configs.common.digits import digits_config


def get_config():
    c = digits_config()
    c.steps = 1000
    c.ema_rates = (0.99,)
    c.objective.update({'name': 'cd', 'levels': 18, 'solver': 'heun', 'target_ema': 0.0})
    c.objective.update({'distance': 'l2', 'weight': 'uniform'})
    c.optimizer.update({'name': 'radam', 'learning_rate': 1e-3})
    c.init_from.update({'workdir': 'runs/digits/edm', 'ema': '0.995'})
    c.teacher.update({'workdir': 'runs/digits/edm', 'ema': '0.995'})
    c.trajectory.every = 100
    c.sampling.update({'sampler': 'onestep', 'ema': '0.99', 'count': 50, 'every': 500})
    c.evaluation.samplers = ('onestep', 'multistep@80,0.8')
    return c
