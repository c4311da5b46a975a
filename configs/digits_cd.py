"""Consistency distillation (CD) on scikit-learn's digits; arXiv 2303.01469.

    python -m cm_jax.train --config=configs/digits_cd.py --workdir=runs/digits/cd \
        --config.init_from.workdir=TEACHER --config.teacher.workdir=TEACHER

TEACHER is a run of digits_edm.py. Global batch 64, 1,000 steps = 64,000 images, the teacher's not
counted; 18 levels, Heun, squared error where the paper has LPIPS. Result: the table of
`bash launch/study.sh digits` in the README.
"""

from configs.digits_edm import digits_config


def get_config():
    c = digits_config()
    c.steps = 1000
    c.ema_rates = (0.99,)
    c.objective.update({'name': 'cd', 'levels': 18, 'solver': 'heun', 'target_ema': 0.0})
    c.objective.update({'distance': 'l2', 'weight': 'uniform'})
    c.optimizer.update({'name': 'radam', 'learning_rate': 1e-3})
    c.init_from.update({'workdir': 'runs/quickstart/teacher', 'ema': '0.995'})
    c.teacher.update({'workdir': 'runs/quickstart/teacher', 'ema': '0.995'})
    c.trajectory.every = 100
    c.sampling.update({'sampler': 'onestep', 'ema': '0.99', 'count': 50, 'every': 500})
    c.evaluation.samplers = ('onestep', 'multistep@80,0.8')
    return c
