"""Consistency training (CT) on LSUN at 256x256, from data alone; arXiv 2303.01469.

    python -m cm_jax.train --config=configs/lsun256_ct.py:bedroom --workdir=runs/lsun256/ct_bedroom \
        --config.dataset.path=PATH --config.lpips.features=vgg16.pth --config.lpips.heads=vgg_lpips.pth

PATH is a folder of images of 256x256 of one category; the variants are bedroom (the default) and
cat. The distance is LPIPS with average pooling, as in the paper's code, with the features of VGG-16
as torchvision publishes it and the heads of the lpips package. The network is ADM. The training is
that of the paper's public command: the global batch is 256, and 1,000,000 steps see 256 million
images, flipped at random. Two steps are the levels found there: 0 and 67 of 151 on bedrooms (80 and
3.991), 0 and 62 on cats (80 and 5.249); x0 is clipped, and images truncate to bytes. It computes in
float32 at precision high, in place of float16 with a loss scale. Ours: not run.

By the paper CT starts from scratch, as here; the public command names a teacher, whose weights
start the student: that is `--config.init_from.workdir=runs/lsun256/edm_bedroom`, with
edm_bedroom256_ema.pt imported as in lsun256_cd.py. The paper's own results are published as
ct_bedroom256.pt and ct_cat256.pt, which `convert import --network=cm_lsun256` reads. Its numbers on
LSUN are not repeated here, as we could not check them.
"""

from cm_jax.errors import check_name
from configs.common.imagenet64 import comparing
from configs.common.lsun256 import lsun256_config

VARIANTS = {'bedroom': 67, 'cat': 62}  # the category: index of the middle level of two steps


def get_config(variant='bedroom'):
    check_name('variant', variant, VARIANTS)
    c = comparing(lsun256_config(variant))
    c.steps = 1_000_000
    c.objective.update({'name': 'ct', 'total_steps': c.get_ref('steps'), 's0': 2, 's1': 150})
    c.objective.update({'mu0': 0.95, 'distance': 'lpips', 'weight': 'uniform'})
    c.optimizer.update({'name': 'radam', 'learning_rate': 5e-5})
    c.lpips.pooling = 'average'
    c.evaluation.samplers = ('onestep', f'multistep@idx:0,{VARIANTS[variant]},150/151,clip')
    return c
