"""LCSC on the trajectory of digits_edm.py, a diffusion model at 9 evaluations; arXiv 2404.02241.

    python -m cm_jax.train --config=configs/digits_edm.py --workdir=runs/digits/edm \
        --config.trajectory.every=20 --config.ema_sigma_rels='(0.05,0.1)' \
        --config.trajectory.emas=True
    python -m cm_jax.search --config=configs/digits_edm_lcsc.py --workdir=runs/digits/edm_lcsc

It searches over 41 snapshots (steps 200 to 1,000) with 138 candidates of 500 samples. The sampler
is DPM-Solver++ of order 3 on equal steps of logSNR, the paper's for diffusion models. A random
search with as many candidates is the control. The report takes 2,000 samples for each seed. The
numbers are small, so that `bash launch/study.sh lcsc`, whose searches these are, takes 109 minutes
on 2 cores that have other work too; the result is in its tables in docs/results.md.
"""

from cm_jax.config import search_config
from configs.digits_edm import get_config as edm_config


def get_config():
    c = search_config()
    c.basis.update({'workdir': 'runs/digits/edm', 'start': 200})
    c.budget.update({'sampler': 'dpm3@9', 'generations': 8, 'samples': 500, 'finalists': 6})
    c.budget.selection_seeds = (20, 21)
    c.evaluation = edm_config().evaluation
    c.evaluation.update({'samplers': ('dpm3@9',), 'samples': 2000, 'seeds': (1000, 1001, 1002)})
    return c
