"""Configs that train in seconds on the digits: `:flow`, with a learned prior, then `:one_step`."""

from ml_collections import ConfigDict

from tests.helpers import tiny


def get_config(objective):
    c = tiny.get_config()
    c.process.update({'name': 'rf', 't_min': 1e-5, 't_max': 1.0})
    c.objective = ConfigDict({'name': objective})
    if objective == 'flow':
        c.prior.update({'name': 'song_unet', 'channels': 4, 'channel_mult': (1,), 'num_blocks': 1})
    else:
        c.objective.update({'total_steps': 12, 'teacher_steps': 4, 'estimates': (1, 2, 3)})
        c.init_from.ema = c.teacher.ema = '0.9'
    c.sampling.sampler = 'euler@2'
    c.evaluation.samplers = ('euler@1', 'adams2@3')
    return c
