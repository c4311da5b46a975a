"""LCSC on the end of the trajectory of imagenet64_edm2.py, a diffusion model at 9 evaluations;
arXiv 2404.02241.

    python -m cm_jax.train --config=configs/imagenet64_edm2.py:s --workdir=runs/imagenet64/edm2_s \
        --config.dataset.path=PATH --config.trajectory.every=8192
    python -m cm_jax.search --config=configs/imagenet64_edm2_lcsc.py \
        --workdir=runs/imagenet64/edm2_lcsc \
        --config.evaluation.weights=pt_inception-2015-12-05-6726825d.pth

The paper searches an iDDPM, whose network is not here. This is a diffusion model whose trajectory
has the power-function averages beside the weights, so that the post-hoc averages are among the
controls. The sampler is DPM-Solver++ of order 3 on equal steps of logSNR, with its official
coefficients. The search over 33 snapshots of the second half, which stay in the host's memory, has
2,010 candidates of 5,000 samples. Ours: not run.
"""

from configs.common.lcsc import fid_search


def get_config():
    c = fid_search('runs/imagenet64/edm2_s', start=262_144, sampler='dpm3@9,official')
    c.basis.storage = 'host'
    return c
