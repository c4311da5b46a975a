"""The one-step stage of catch-up distillation (CUD), RK12, on scikit-learn's digits; arXiv 2305.10769.

    python -m cm_jax.train --config=configs/digits_cud_one_step.py --workdir=runs/digits/cud_one_step

It starts and learns from a run of digits_cud_rk12.py; --config.init_from.workdir and
--config.teacher.workdir name another. Global batch 64, 500 steps = 32,000 images of noise, those of
that run not counted. `bash launch/study.sh digits-cud` starts it half way through such a run, so that
both together have seen as many images as the runs they are compared with.
"""

from ml_collections import ConfigDict

from configs import digits_cud_rk12

SAMPLERS = ('euler@1', 'euler@2', 'euler@4', 'euler@8', 'euler@16')


def one_step_stage(c, workdir, steps, ema_rate):
    """The config `c` of a CUD run in `workdir` -> that of the stage that follows it, of so many steps.

    The settings of the paper's code, but for `ema_rate` where it is not 0.9999.
    """
    (ema,) = map(str, c.ema_rates)
    c.steps = steps
    c.ema_rates = (ema_rate,)
    c.prior = ConfigDict()  # it has done its part: sampling starts from N(0, I)
    c.objective = ConfigDict({'name': 'one_step', 'teacher_steps': 16})
    c.objective.total_steps = c.get_ref('steps')
    c.objective.update({'estimates': (8, 11, 14), 'ema_weight': 0.1, 'ema_rate': ema_rate})
    for section in (c.init_from, c.teacher):
        section.update({'workdir': workdir, 'ema': ema})
    c.sampling.update({'sampler': 'euler@1', 'ema': str(ema_rate)})
    c.evaluation.samplers = SAMPLERS
    return c


def get_config():
    c = one_step_stage(digits_cud_rk12.get_config(), 'runs/digits/cud_rk12', 500, 0.99)
    c.optimizer.update({'learning_rate': 1e-3, 'warmup_steps': 0})
    c.sampling.every = 500
    return c
