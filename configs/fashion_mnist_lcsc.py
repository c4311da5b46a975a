"""LCSC on the trajectory of fashion_mnist_ect.py; arXiv 2404.02241.

    python -m cm_jax.search --config=configs/fashion_mnist_lcsc.py:full \\
        --workdir=runs/fashion_mnist/lcsc_full

The variants, of which the last two cost as much:

    full          the default: over 61 snapshots (steps 4,000 to 10,000) of the run of that name, with
                  1,610 candidates of 5,000 one-step samples. The controls are a random search with as
                  many candidates and the plane through three snapshots
    small         over 41 snapshots (steps 320 to 1,600) of the small network's run, with 122
                  candidates of 1,000 one-step samples; controls are the averages. Ours: fd_lenet
                  14.07 ± 0.79 in one step
    small_descent the same down the derivative of two spaces, fd_lenet and fd_pixel in relative units:
                  10 profiles, scored twice for the units, and 34 steps, each the cost of three
                  candidates. Its report is of the search's result alone. Ours: fd_lenet 11.55 ± 0.38
                  in one step

Ours: `full` not run to its end.
"""

from cm_jax.config import search_config
from cm_jax.errors import check_name
from configs.fashion_mnist_ect import get_config as ect_config

VARIANTS = ('full', 'small', 'small_descent')


def get_config(variant='full'):
    check_name('variant', variant, VARIANTS)
    c = search_config()
    c.evaluation = ect_config().evaluation
    c.evaluation.samplers = ('onestep',)
    if variant == 'full':
        c.basis.update({'workdir': 'runs/fashion_mnist/ect_full', 'start': 4000})
        c.budget.generations = 100
        c.controls.landscape = 21
        return c
    c.basis.update({'workdir': 'runs/fashion_mnist/ect_small', 'start': 320})
    c.budget.update({'samples': 1000, 'finalists': 8, 'selection_seeds': (20, 21)})
    c.budget.generations = 7
    c.controls.random = False
    c.evaluation.update({'samples': 2000, 'seeds': (1000, 1001)})
    c.evaluation.second = ('lenet_digits', 'lenet_digits_2', 'pixel')
    if variant == 'small_descent':
        c.search.method = 'gradient'
        c.budget.update({'metric': 'fd_lenet+fd_pixel', 'units': 'relative', 'generations': 34})
        c.gradient.batch_size = 1000
        c.controls.update({'windows': 0, 'bema': (), 'reported': ('lcsc',)})
    return c
