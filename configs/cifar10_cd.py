"""Consistency distillation (CD) of EDM's NCSN++ on CIFAR-10, unconditional; arXiv 2303.01469.

    python -m cm_jax.convert import --from=edm-cifar10-32x32-uncond-ve.pkl --network=ncsnpp_cifar10 \
        --workdir=runs/cifar10/edm_ve
    python -m cm_jax.train --config=configs/cifar10_cd.py:lpips --workdir=runs/cifar10/cd_lpips \
        --config.lpips.features=vgg16.pth --config.lpips.heads=vgg_lpips.pth

The variants are the distances of the paper and its public code: lpips (the default; with the
features of VGG-16 as torchvision publishes it and the heads of the lpips package), l1 and l2, whose
commands name no files. The rate of l1 is 2e-4, that of the others 4e-4. The global batch is 512:
800,000 steps see 410 million images, those of the teacher not counted. There are 18 levels, and the
solver is Heun's. As in the paper's code, images are flipped at random, two steps are the levels 0
and 11 of the 18 (80 and 0.585), x0 is clipped, and images truncate to bytes. Products are float32's
own; that code names no precision. The paper's FID-50k of lpips, 1 and 2 steps: 3.55 and 2.93; it
draws those of l1 and l2 in a figure, above them. Ours: not run.

The paper's teacher is an NCSN++ of its own, edm_cifar10_ema. It is imported with
`--network=cm_cifar10 --ema=params_ema`, and a run that starts from it needs
`--config.model.augment_dim=0`.
"""

from cm_jax.errors import check_name
from configs.common.cifar10 import CM_TWO_STEPS, cifar10_config

VARIANTS = {'lpips': 4e-4, 'l1': 2e-4, 'l2': 4e-4}  # the distance: learning rate


def get_config(variant='lpips'):
    check_name('variant', variant, VARIANTS)
    c = cifar10_config('ncsnpp_cifar10')
    c.dataset.flip = True
    c.steps = 800_000
    c.batch_size = 512
    c.ema_rates = (0.9999,)
    c.model.dropout = 0.0
    c.objective.update({'name': 'cd', 'levels': 18, 'solver': 'heun', 'target_ema': 0.0})
    c.objective.update({'distance': variant, 'weight': 'uniform'})
    c.optimizer.update({'name': 'radam', 'learning_rate': VARIANTS[variant]})
    c.init_from.workdir = 'runs/cifar10/edm_ve'
    c.teacher.workdir = 'runs/cifar10/edm_ve'
    c.sampling.ema = '0.9999'
    c.evaluation.update({'samplers': CM_TWO_STEPS, 'bytes': 'truncate'})
    return c
