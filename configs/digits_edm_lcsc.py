"""LCSC on the trajectory of digits_edm.py, a diffusion model at 9 evaluations; arXiv 2404.02241.

    python -m cm_jax.train --config=configs/digits_edm.py --workdir=runs/digits/edm \
        --config.trajectory.every=20 --config.ema_sigma_rels='(0.05,0.1)' \
        --config.trajectory.emas=True
    python -m cm_jax.search --config=configs/digits_edm_lcsc.py --workdir=runs/digits/edm_lcsc

41 snapshots (steps 200 to 1,000), 202 candidates of 1,000 samples with DPM-Solver++ of order 3 on
equal steps of logSNR, the paper's for diffusion models, and as many of a random search. Result: that
of `bash launch/study.sh lcsc`.
"""

from cm_jax.config import search_config
from configs.digits_edm import get_config as edm_config


def get_config():
    c = search_config()
    c.basis.update({'workdir': 'runs/digits/edm', 'start': 200})
    c.budget.update({'sampler': 'dpm3@9', 'generations': 12, 'samples': 1000, 'finalists': 12})
    c.evaluation = edm_config().evaluation
    c.evaluation.samplers = ('dpm3@9',)
    c.evaluation.seeds = (1000, 1001, 1002)
    return c
