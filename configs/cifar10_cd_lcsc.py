"""LCSC on runs of cifar10_cd.py:lpips, a consistency model; arXiv 2404.02241.

    python -m cm_jax.train --config=configs/cifar10_cd.py:lpips --workdir=runs/cifar10/cd_more \
        --config.init_from.workdir=runs/cifar10/cd_lpips --config.steps=40_000 \
        --config.lpips.features=vgg16.pth --config.lpips.heads=vgg_lpips.pth
    python -m cm_jax.search --config=configs/cifar10_cd_lcsc.py:enhance \
        --workdir=runs/cifar10/cd_lcsc_enhance \
        --config.evaluation.weights=pt_inception-2015-12-05-6726825d.pth

The variants are the paper's two uses. enhance (the default): the finished run is trained on for the
paper's 40,000 steps with a snapshot every 1,000 steps. The paper says that its FID-50k in 1 step is
then below CD's in 2 steps, 2.93. reduce: a short run is searched instead of a long one,

    python -m cm_jax.train --config=configs/cifar10_cd.py:lpips --workdir=runs/cifar10/cd_short \
        --config.steps=100_000 --config.batch_size=128 \
        --config.lpips.features=vgg16.pth --config.lpips.heads=vgg_lpips.pth

which sees 12.8 million images. The paper's FID-50k in 1 step: 3.34, at a 23rd of the cost of
800,000 steps at batch 512, search counted. Its window is not known; ours are the last 40,000 steps.
Both search over 41 snapshots, with 2,010 candidates of 5,000 samples. Ours: not run.
"""

from cm_jax.errors import check_name
from configs.common.lcsc import fid_search

VARIANTS = {'enhance': ('cd_more', 0), 'reduce': ('cd_short', 60_000)}  # the run, the first step


def get_config(variant='enhance'):
    check_name('variant', variant, VARIANTS)
    run, start = VARIANTS[variant]
    return fid_search(f'runs/cifar10/{run}', start, byte_rule='truncate')
