"""LCSC on the trajectory of digits_ect.py, the shortest searches; arXiv 2404.02241.

    python -m cm_jax.search --config=configs/digits_lcsc.py:evolution \\
        --workdir=runs/digits/lcsc_evolution

Both variants search over 35 snapshots (steps 320 to 1,000), with one-step samples:

    evolution  the default: 106 candidates of 2,000 samples, by `fd_lenet`
    gradient   10 candidates and 60 steps of 1,000 samples down the derivative of `fd_lenet` and
               `fd_pixel`, each in units of the best profile's, with coefficients of its own for
               each of the 16 blocks of the network; not in the paper

The first has the averages of a few windows as its control, and the second reports its result alone,
to be read beside the first; digits_ect_lcsc.py has the other controls. Both are searches of `bash
launch/quickstart.sh`; the results are in its table in the README.
"""

from cm_jax.config import search_config
from cm_jax.errors import check_name
from configs.digits_ect import get_config as ect_config

VARIANTS = ('evolution', 'gradient')


def get_config(variant='evolution'):
    check_name('variant', variant, VARIANTS)
    c = search_config()
    c.basis.update({'workdir': 'runs/digits/ect', 'start': 320})
    c.search.population = 12
    c.evolution.crossover = 0.7
    c.budget.update({'generations': 8, 'samples': 2000, 'finalists': 8})
    c.budget.selection_seeds = (20, 21)
    c.controls.update({'random': False, 'posthoc': (), 'windows': 3, 'bema': ()})
    c.evaluation = ect_config().evaluation
    if variant == 'gradient':
        c.search.method = 'gradient'
        c.basis.groups = ('top_level',)
        c.budget.update({'metric': 'fd_lenet+fd_pixel', 'units': 'relative'})
        c.budget.update({'generations': 60, 'samples': 1000, 'batch_size': 500})
        c.gradient.batch_size = 1000
        c.controls.update({'windows': 0, 'reported': ('lcsc',)})
    return c
