"""LCSC on the trajectory of digits_edm.py, a diffusion model at 9 evaluations; arXiv 2404.02241.

    python -m cm_jax.train --config=configs/digits_edm.py --workdir=runs/digits/edm \
        --config.trajectory.every=20 --config.ema_sigma_rels='(0.05,0.1)' \
        --config.trajectory.emas=True
    python -m cm_jax.search --config=configs/digits_edm_lcsc.py:evolution \
        --workdir=runs/digits/edm_lcsc_evolution

It searches over 41 snapshots (steps 200 to 1,000) with candidates of 300 samples. The sampler is
DPM-Solver++ of order 3 on equal steps of logSNR, the paper's for diffusion models, with the
coefficients of the expansion (those of the paper's code are dpm3@9,official). The variants are the
methods; evolution, the paper's, is the default. All cost as much, by the network evaluations that
they count, of which a step of the gradient takes 35 for each sample:

    variant       searches                                 network evaluations
    evolution     106 candidates                           286,200
    cma_es        106 candidates                           286,200
    random        106 candidates                           286,200
    gradient      10 candidates and 25 steps               289,500
    gradient_two  10 candidates and 22 steps, on fd_lenet  285,000, with those of the profiles
                  and fd_pixel in relative units           for the units

The controls are a random search that costs as much, the windows, BEMA and post-hoc averages. The
report takes 2,000 samples for each of two seeds. `bash launch/study.sh lcsc` runs these searches.
Ours, the fd_lenet of the five, means over three search seeds: 7.21, 5.90, 7.55, 4.32 and 4.47, and
in docs/results.md in other spaces too.
"""

from cm_jax.config import search_config
from configs.common.digits_search import with_method
from configs.digits_edm import get_config as edm_config

VARIANTS = {  # the method: its generations, or steps
    'evolution': 6,
    'cma_es': 6,
    'random': 6,
    'gradient': 25,
    'gradient_two': 22,
}


def get_config(variant='evolution'):
    c = search_config()
    c.basis.update({'workdir': 'runs/digits/edm', 'start': 200})
    c.budget.update({'sampler': 'dpm3@9', 'samples': 300, 'batch_size': 300, 'finalists': 4})
    c.budget.selection_seeds = (20, 21)
    c.evaluation = edm_config().evaluation
    c.evaluation.update({'samplers': ('dpm3@9',), 'samples': 2000, 'seeds': (1000, 1001)})
    return with_method(c, variant, VARIANTS)
