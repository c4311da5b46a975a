"""What the configs on rectified flow share, on every data set: the process and CUD's settings."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def rectified_flow(c, **objective):
    """Returns the config `c` moved to rectified flow, with this objective and samplers for it."""
    c.process.update({'name': 'rf', 't_min': 1e-5, 't_max': 1.0})
    c.objective = ConfigDict(objective)
    c.sampling.sampler = 'euler@16'
    c.evaluation.samplers = ('euler@16', 'heun@8', 'euler@4', 'onestep')
    return c


def catch_up(order):
    """Returns the objective of catch-up distillation of an order; 1 is RK12.

    The settings are those of the paper's code; arXiv 2305.10769.
    """
    settings = {'name': 'catch_up', 'order': order, 'steps': 16}
    return settings | {'step_size': 'uniform', 'share_dropout': False}


def one_step_stage(c, workdir, steps, ema_rate):
    """Returns the config of the one-step stage that follows a run of catch-up distillation.

    `c` is that run's config and `workdir` its folder; `steps` is the length of the stage. The
    settings are those of the paper's code, whose `ema_rate` is 0.9999: the student leaves out the
    scaling of the skips (`--config.model.skip_scaling=0.75` keeps it), and its weights themselves
    are sampled, not their average.
    """
    (ema,) = map(str, c.ema_rates)
    if 'skip_scaling' in c.model:
        c.model.skip_scaling = placeholder(float)
    c.steps = steps
    c.ema_rates = (ema_rate,)
    c.prior = ConfigDict()  # The stage trains no prior: sampling starts from N(0, I).
    c.objective = ConfigDict({'name': 'one_step', 'teacher_steps': 16})
    c.objective.total_steps = c.get_ref('steps')
    c.objective.update({'estimates': (8, 11, 14), 'ema_weight': 0.1, 'ema_rate': ema_rate})
    for section in (c.init_from, c.teacher):
        section.update({'workdir': workdir, 'ema': ema})
    c.sampling.update({'sampler': 'euler@1', 'ema': ''})
    c.evaluation.samplers = ('euler@1', 'euler@2', 'euler@4', 'euler@8', 'euler@16')
    return c
