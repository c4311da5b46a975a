"""LCSC on the end of the trajectory of imagenet64_cd.py, a consistency model; arXiv 2404.02241.

    python -m cm_jax.train --config=configs/imagenet64_cd.py --workdir=runs/imagenet64/cd_more \
        --config.init_from.workdir=runs/imagenet64/cd --config.init_from.ema=0.9999432 \
        --config.steps=20_000 --config.trajectory.every=500 --config.dataset.path=PATH \
        --config.lpips.features=vgg16.pth --config.lpips.heads=vgg_lpips.pth
    python -m cm_jax.search --config=configs/imagenet64_cd_lcsc.py \
        --workdir=runs/imagenet64/cd_lcsc \
        --config.evaluation.weights=pt_inception-2015-12-05-6726825d.pth

The finished run is trained on for the paper's 20,000 steps with a snapshot every 500 steps. The
search over these 41 snapshots, which stay in the host's memory, has 2,010 candidates of 5,000
samples. Ours: not run.
"""

from configs.common.imagenet64 import ADM_REFERENCE
from configs.common.lcsc import fid_search


def get_config():
    c = fid_search('runs/imagenet64/cd_more', start=0, reference=ADM_REFERENCE)
    c.basis.storage = 'host'
    return c
