"""LCSC on the end of the trajectory of imagenet64_ct.py:scratch, a consistency model; arXiv 2404.02241.

    python -m cm_jax.train --config=configs/imagenet64_ct.py:scratch \
        --workdir=runs/imagenet64/ct_scratch \
        --config.trajectory.start=750_000 --config.trajectory.every=1000 \
        --config.dataset.path=PATH --config.lpips.features=vgg16.pth \
        --config.lpips.heads=vgg_lpips.pth
    python -m cm_jax.search --config=configs/imagenet64_ct_lcsc.py \
        --workdir=runs/imagenet64/ct_lcsc \
        --config.evaluation.weights=pt_inception-2015-12-05-6726825d.pth

The search over 51 snapshots of the last 50,000 steps, which stay in the host's memory, has 2,010
candidates of 5,000 samples. (The paper's enhanced weights are of step 1,000,000.) Ours: not run.
"""

from configs.common.imagenet64 import ADM_REFERENCE
from configs.common.lcsc import fid_search


def get_config():
    c = fid_search(
        'runs/imagenet64/ct_scratch', 750_000, byte_rule='truncate', reference=ADM_REFERENCE
    )
    c.basis.storage = 'host'
    return c
