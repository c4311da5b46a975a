"""Consistency distillation (CD) on LSUN at 256x256, from an ADM teacher; arXiv 2303.01469.

    python -m cm_jax.convert import --from=edm_bedroom256_ema.pt --network=cm_lsun256 \
        --workdir=runs/lsun256/edm_bedroom
    python -m cm_jax.train --config=configs/lsun256_cd.py:bedroom_lpips \
        --workdir=runs/lsun256/cd_bedroom_lpips --config.dataset.path=PATH \
        --config.lpips.features=vgg16.pth --config.lpips.heads=vgg_lpips.pth

It starts and learns from the public teacher: edm_bedroom256_ema.pt, and edm_cat256_ema.pt for cat.
To take the run of lsun256_edm.py instead, add `--config.init_from.ema=0.9999432` and
`--config.teacher.ema=0.9999432`. PATH is a folder of images of 256x256 of one category. The
variants are bedroom_lpips (the default), bedroom_l2, cat_lpips and cat_l2, by category and
distance; LPIPS has average pooling, with the features of VGG-16 as torchvision publishes it and the
heads of the lpips package, and the two variants of l2 need no such files. The training is that of
the paper's public commands: the global batch is 256, and 600,000 steps see 154 million images,
flipped at random, those of the teacher not counted; there are 40 levels, and the solver is Heun's.
Two steps are the levels that they found on bedrooms: 0 and 17 of the 40 (LPIPS; 80 and 4.366), 0
and 18 (l2; 80 and 3.520). As there, x0 is clipped, and images truncate to bytes. It computes in
float32 at precision high, in place of float16 with a loss scale. Ours: not run.

The paper's own results are published as cd_bedroom256_lpips.pt, cd_bedroom256_l2.pt,
cd_cat256_lpips.pt and cd_cat256_l2.pt, which `convert import --network=cm_lsun256` reads. Its
numbers on LSUN are not repeated here, as we could not check them.
"""

from cm_jax.errors import check_name
from configs.common.imagenet64 import comparing
from configs.common.lsun256 import lsun256_config

VARIANTS = {  # category, distance, index of the middle level of two steps
    'bedroom_lpips': ('bedroom', 'lpips', 17),
    'bedroom_l2': ('bedroom', 'l2', 18),
    'cat_lpips': ('cat', 'lpips', 17),
    'cat_l2': ('cat', 'l2', 18),
}


def get_config(variant='bedroom_lpips'):
    check_name('variant', variant, VARIANTS)
    category, distance, middle = VARIANTS[variant]
    c = comparing(lsun256_config(category))
    c.steps = 600_000
    c.objective.update({'name': 'cd', 'levels': 40, 'solver': 'heun', 'target_ema': 0.95})
    c.objective.update({'distance': distance, 'weight': 'uniform'})
    c.optimizer.update({'name': 'radam', 'learning_rate': 1e-5})
    c.init_from.workdir = f'runs/lsun256/edm_{category}'
    c.teacher.workdir = f'runs/lsun256/edm_{category}'
    c.lpips.pooling = 'average'
    c.evaluation.samplers = ('onestep', f'multistep@idx:0,{middle},39/40,clip')
    return c
