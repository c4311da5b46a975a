"""LCSC on the trajectory of digits_ect.py, with every control; arXiv 2404.02241.

    python -m cm_jax.train --config=configs/digits_ect.py --workdir=runs/digits/ect \
        --config.ema_sigma_rels='(0.05,0.1)' --config.trajectory.emas=True
    python -m cm_jax.search --config=configs/digits_ect_lcsc.py:evolution \
        --workdir=runs/digits/ect_lcsc_evolution

It searches over 41 snapshots (steps 200 to 1,000) with candidates of 1,000 one-step samples. The
variants are its methods; evolution, the paper's, is the default. All cost as much, by the network
evaluations that they count, of which a step of the gradient takes 3 for each sample:

    variant       searches                                 network evaluations
    evolution     170 candidates                           170,000
    cma_es        170 candidates                           170,000
    random        170 candidates                           170,000
    gradient      10 candidates and 53 steps               169,000
    gradient_two  10 candidates and 50 steps, on fd_lenet  170,000, with those of the profiles
                  and fd_pixel in relative units           for the units

The controls are a random search that costs as much, the windows, BEMA and post-hoc averages (which
need the two options of the training run above) and the plane through three snapshots. The report
takes 2,000 samples for each of three seeds. `bash launch/study.sh lcsc` runs these searches. Ours,
the fd_lenet of the five, means over three search seeds: 9.13, 7.73, 9.84, 6.04 and 7.07, and in
docs/results.md in other spaces too.
"""

from cm_jax.config import search_config
from configs.common.digits_search import with_method
from configs.digits_ect import get_config as ect_config

VARIANTS = {  # the method: its generations, or steps
    'evolution': 10,
    'cma_es': 10,
    'random': 10,
    'gradient': 53,
    'gradient_two': 50,
}


def get_config(variant='evolution'):
    c = search_config()
    c.basis.update({'workdir': 'runs/digits/ect', 'start': 200})
    c.budget.update({'samples': 1000, 'finalists': 8, 'selection_seeds': (20, 21)})
    c.controls.landscape = 9
    c.evaluation = ect_config().evaluation
    c.evaluation.update({'samplers': ('onestep',), 'samples': 2000, 'seeds': (1000, 1001, 1002)})
    return with_method(c, variant, VARIANTS)
