"""A config that trains in seconds on the digits: `tests/helpers/tiny.py:edm`, `:ect`, `:cd` ..."""

from ml_collections import ConfigDict

from cm_jax.settings import parse_run, parse_search
from configs.common.digits import digits_config


def get_config(objective='edm'):
    c = digits_config()
    c.steps = 12
    c.batch_size = 16
    c.ema_rates = (0.5, 0.9)
    c.ema_sigma_rels = (0.1,)
    c.model.update({'channels': 4, 'channel_mult': (1,)})
    c.objective.name = objective
    if objective == 'ect':
        c.objective.update({'double_every': 4, 'q': 2.0})
    c.train.update({'log_every': 1, 'resume_every': 4})
    c.trajectory.every = 2
    c.sampling.update({'count': 10, 'every': 6})
    c.evaluation.update(
        {'samples': 40, 'batch_size': 20, 'samplers': ('onestep', 'multistep@80,1')}
    )
    if objective == 'catch_up':
        on_rectified_flow(c)
    return c


def settings_of(config):
    """What a command parses from a config."""
    return parse_run(config.to_dict())


def search_settings_of(config):
    """What the search parses from a config."""
    return parse_search(config.to_dict())


def on_rectified_flow(c):
    """CUD of order 2 with a learned prior."""
    c.process.update({'name': 'rf', 't_min': 1e-5, 't_max': 1.0})
    c.model.update({'heads': 2, 'skip_scaling': 0.75, 'dropout': 0.1})
    c.prior.update({'name': 'song_unet', 'channels': 4, 'channel_mult': (1,), 'num_blocks': 1})
    c.prior.dropout = 0.1
    c.objective = ConfigDict({'name': 'catch_up', 'order': 2, 'head': 2})
    c.sampling.sampler = 'euler@2'
    c.evaluation.samplers = ('euler@2', 'onestep')
