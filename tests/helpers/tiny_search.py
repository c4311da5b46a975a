"""A search of seconds over the trajectory of tests/helpers/tiny.py; `:catch_up` is for that one's."""

from configs.digits_lcsc import get_config as digits_lcsc
from tests.helpers.tiny import get_config as tiny


def get_config(objective='ect'):
    c = digits_lcsc()
    c.basis.start = 1
    c.search.population = 3
    c.controls.update({'random': True, 'posthoc': (0.1, 0.12), 'landscape': 3})
    c.controls.update({'windows': 0, 'bema': ()})  # as in tests/fixtures/stored_runs.tar.gz
    c.budget.update({'generations': 2, 'samples': 40, 'batch_size': 20})
    c.budget.finalists = 2
    c.evaluation = tiny(objective).evaluation
    return c
