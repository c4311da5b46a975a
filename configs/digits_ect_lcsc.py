"""LCSC on the trajectory of digits_ect.py, with every control; arXiv 2404.02241.

    python -m cm_jax.train --config=configs/digits_ect.py --workdir=runs/digits/ect \
        --config.ema_sigma_rels='(0.05,0.1)' --config.trajectory.emas=True
    python -m cm_jax.search --config=configs/digits_ect_lcsc.py --workdir=runs/digits/ect_lcsc

It searches over 41 snapshots (steps 200 to 1,000) with 202 candidates of 1,000 one-step samples.
The controls are a random search with as many candidates, the post-hoc averages (which need the two
options of the training run above) and the plane through three snapshots. The report takes 2,000
samples for each seed. The numbers are small, so that `bash launch/study.sh lcsc`, whose searches
these are, takes 109 minutes on 2 cores that have other work too; the result is in its tables in
docs/results.md.
"""

from cm_jax.config import search_config
from configs.digits_ect import get_config as ect_config


def get_config():
    c = search_config()
    c.basis.update({'workdir': 'runs/digits/ect', 'start': 200})
    c.budget.update({'generations': 12, 'samples': 1000, 'finalists': 8})
    c.budget.selection_seeds = (20, 21)
    c.controls.landscape = 9
    c.evaluation = ect_config().evaluation
    c.evaluation.update({'samplers': ('onestep',), 'samples': 2000, 'seeds': (1000, 1001, 1002)})
    return c
