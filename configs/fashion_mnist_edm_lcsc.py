"""LCSC on the trajectory of fashion_mnist_edm.py, a diffusion model at 9 evaluations; arXiv 2404.02241.

    python -m cm_jax.train --config=configs/fashion_mnist_edm.py --workdir=runs/fashion_mnist/edm_full \
        --config.trajectory.every=250
    python -m cm_jax.search --config=configs/fashion_mnist_edm_lcsc.py \
        --workdir=runs/fashion_mnist/edm_lcsc

It searches over 41 snapshots (steps 10,000 to 20,000) with 810 candidates of 5,000 samples. The
sampler is DPM-Solver++ of order 3 on equal steps of logSNR, with its official coefficients, as in
the paper's code. A random search with as many candidates is the control. Ours: not run to its end.
"""

from cm_jax.config import search_config
from configs.fashion_mnist_edm import get_config as edm_config


def get_config():
    c = search_config()
    c.basis.update({'workdir': 'runs/fashion_mnist/edm_full', 'start': 10_000})
    c.budget.update({'sampler': 'dpm3@9,official', 'generations': 50})
    c.evaluation = edm_config().evaluation
    c.evaluation.samplers = ('dpm3@9,official',)
    return c
