"""LCSC on the trajectory of digits_ect.py, the shortest search; arXiv 2404.02241.

    python -m cm_jax.search --config=configs/digits_lcsc.py --workdir=runs/digits/lcsc

It searches over 35 snapshots (steps 320 to 1,000) with 106 candidates of 2,000 one-step samples. Its
controls are those that cost next to nothing, seven windows and two BEMA averages; digits_ect_lcsc.py
has the others. This is the search of `bash launch/quickstart.sh`;
the result is in its table in the README.
"""

from cm_jax.config import search_config
from configs.digits_ect import get_config as ect_config


def get_config():
    c = search_config()
    c.basis.update({'workdir': 'runs/digits/ect', 'start': 320})
    c.search.population = 12
    c.evolution.crossover = 0.7
    c.budget.update({'generations': 8, 'samples': 2000, 'finalists': 8})
    c.budget.selection_seeds = (20, 21)
    c.controls.update({'random': False, 'posthoc': (), 'windows': 3, 'bema': (0.2,)})
    c.evaluation = ect_config().evaluation
    return c
