"""LCSC on runs of imagenet64_cd.py:lpips, a consistency model; arXiv 2404.02241.

    python -m cm_jax.train --config=configs/imagenet64_cd.py:lpips \
        --workdir=runs/imagenet64/cd_more \
        --config.init_from.workdir=runs/imagenet64/cd_lpips --config.init_from.ema=0.9999432 \
        --config.steps=20_000 --config.trajectory.every=500 --config.dataset.path=PATH \
        --config.lpips.features=vgg16.pth --config.lpips.heads=vgg_lpips.pth
    python -m cm_jax.search --config=configs/imagenet64_cd_lcsc.py:enhance \
        --workdir=runs/imagenet64/cd_lcsc_enhance \
        --config.evaluation.weights=pt_inception-2015-12-05-6726825d.pth

The variants are the paper's two uses. enhance (the default): the finished run is trained on for the
paper's 20,000 steps with a snapshot every 500 steps. reduce: a short run is searched instead of a
long one,

    python -m cm_jax.train --config=configs/imagenet64_cd.py:lpips \
        --workdir=runs/imagenet64/cd_short --config.steps=100_000 --config.batch_size=512 \
        --config.trajectory.start=60_000 --config.trajectory.every=1000 \
        --config.dataset.path=PATH \
        --config.lpips.features=vgg16.pth --config.lpips.heads=vgg_lpips.pth

which sees 51.2 million images, a 24th of those of the long run. The paper's cost is a 15th, search
counted; its steps, batch and FID-50k are not known here, and these are ours. Both search over 41
snapshots, which stay in the host's memory, with 2,010 candidates of 5,000 samples. Ours: not run.
"""

from cm_jax.errors import check_name
from configs.common.imagenet64 import ADM_REFERENCE
from configs.common.lcsc import fid_search

VARIANTS = {'enhance': ('cd_more', 0), 'reduce': ('cd_short', 60_000)}  # the run, the first step


def get_config(variant='enhance'):
    check_name('variant', variant, VARIANTS)
    run, start = VARIANTS[variant]
    c = fid_search(f'runs/imagenet64/{run}', start, byte_rule='truncate', reference=ADM_REFERENCE)
    c.basis.storage = 'host'
    return c
