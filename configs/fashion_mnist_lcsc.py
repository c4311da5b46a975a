"""LCSC on the trajectory of fashion_mnist_ect.py; arXiv 2404.02241.

    python -m cm_jax.search --config=configs/fashion_mnist_lcsc.py --workdir=runs/fashion_mnist/lcsc

It searches over 61 snapshots (steps 4,000 to 10,000) with 1,610 candidates of 5,000 one-step
samples. The controls are a random search with as many candidates and the plane through three
snapshots. Ours: not run to its end.
"""

from cm_jax.config import search_config
from configs.fashion_mnist_ect import get_config as ect_config


def get_config():
    c = search_config()
    c.basis.update({'workdir': 'runs/fashion_mnist/ect_full', 'start': 4000})
    c.budget.generations = 100
    c.controls.landscape = 21
    c.evaluation = ect_config().evaluation
    c.evaluation.samplers = ('onestep',)
    return c
