"""LCSC on the trajectory of digits_ect.py; arXiv 2404.02241.

    python -m cm_jax.search --config=configs/digits_lcsc.py --workdir=runs/quickstart/lcsc

35 snapshots (steps 320 to 1,000), 106 candidates of 2,000 one-step samples.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs.digits_ect import get_config as ect_config


def get_config():
    c = ConfigDict()
    c.seed = 0  # of the search's own choices
    c.basis = ConfigDict({'workdir': 'runs/quickstart/ect', 'start': 320, 'every': 1, 'ema': ''})
    c.basis.stop = placeholder(int)  # None is the last snapshot
    c.search = ConfigDict({'population': 12, 'parents': 10, 'crossover': 0.7, 'blend': 0.5})
    c.search.update({'mutation': 0.25, 'scale': 0.065, 'ema_rates': ()})
    c.budget = ConfigDict({'sampler': 'onestep', 'generations': 8, 'samples': 2000})
    c.budget.update({'batch_size': 500, 'seed': 10, 'finalists': 8, 'selection_seeds': (20, 21)})
    c.evaluation = ect_config().evaluation  # of the report: noise that nothing was chosen by
    return c
