"""LCSC on the end of the trajectory of cifar10_edm.py, a diffusion model at 9 evaluations;
arXiv 2404.02241.

    python -m cm_jax.train --config=configs/cifar10_edm.py:ddpmpp --workdir=runs/cifar10/edm_ddpmpp \
        --config.trajectory.start=340_000 --config.trajectory.every=1000
    python -m cm_jax.search --config=configs/cifar10_edm_lcsc.py --workdir=runs/cifar10/edm_lcsc \
        --config.evaluation.weights=pt_inception-2015-12-05-6726825d.pth

The sampler is DPM-Solver++ of order 3 on equal steps of logSNR, with its official coefficients and
without lower orders at the end, as in the paper's code. The search over 52 snapshots has 2,010
candidates of 5,000 samples. The paper's FID-50k, of a DDPM, whose network is not here: 3.97 at 9
evaluations with LCSC, 3.96 at 15 with EMA*. Ours: not run.
"""

from configs.common.lcsc import fid_search


def get_config():
    return fid_search('runs/cifar10/edm_ddpmpp', start=340_000, sampler='dpm3@9,official')
