"""Improved consistency training (iCT) on ImageNet at 64x64, class-conditional, from data alone;
arXiv 2310.14189.

    python -m cm_jax.train --config=configs/imagenet64_ict.py:base \
        --workdir=runs/imagenet64/ict_base --config.dataset.path=PATH

PATH is a folder of images of 64x64 with one folder for each class. The variants are the networks:
base (the default) is ADM, 295,899,267 parameters, and deep has twice its blocks, 495,357,699
parameters. The global batch is 4096: 800,000 steps see 3,277 million images, in eight stages from
10 to 1280 gaps. The paper's code is not public, and the settings here are second-hand, from
accounts of the paper (docs/recipes.md has the source of each). Rate, dropout, average, crop and the
middle level of two steps (1.526, ECT's) are not confirmed: those here are ours, as it is that
images may be by any crop and are not flipped, and that it computes in float32 at precision high, as
the last gaps are small. The paper's FID-50k, 1 and 2 steps: 4.02 and 3.20 (base), 3.25 and 2.77
(deep). Ours: not run.
"""

from cm_jax.errors import check_name
from configs.common.imagenet64 import comparing, imagenet64_config

VARIANTS = {'base': 3, 'deep': 6}  # the residual blocks at each resolution of the encoder


def get_config(variant='base'):
    check_name('variant', variant, VARIANTS)
    c = comparing(imagenet64_config('adm_imagenet64'))
    c.model.num_blocks = VARIANTS[variant]
    c.steps = 800_000
    c.batch_size = 4096
    c.ema_rates = (0.99997,)
    c.model.noise_scale = 1000.0  # 250 ln t, as in the paper; EDM's weights take ln(t)/4
    c.model.dropout = 0.2
    c.objective.update({'name': 'ict', 'total_steps': c.get_ref('steps'), 's0': 10, 's1': 1280})
    c.objective.update({'p_mean': -1.1, 'p_std': 2.0, 'weight': 'inverse_gap'})
    c.optimizer.update({'name': 'radam', 'learning_rate': 1e-4})
    c.sampling.update({'sampler': 'onestep', 'ema': '0.99997'})
    c.evaluation.samplers = ('onestep', 'multistep@80,1.526')
    return c
