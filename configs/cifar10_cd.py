"""Consistency distillation (CD) of EDM's NCSN++ on CIFAR-10, unconditional; arXiv 2303.01469.

    python -m cm_jax.convert import --from=edm-cifar10-32x32-uncond-ve.pkl --network=ncsnpp_cifar10 \
        --workdir=runs/cifar10/edm_ve
    python -m cm_jax.train --config=configs/cifar10_cd.py --workdir=runs/cifar10/cd \
        --config.lpips.features=vgg16.pth --config.lpips.heads=vgg_lpips.pth

The distance is LPIPS, with the features of VGG-16 as torchvision publishes it and the heads of the
lpips package. The global batch is 512: 800,000 steps see 410 million images, those of the teacher
not counted. There are 18 levels, and the solver is Heun's. (The paper's teacher is an NCSN++ of its
own, trained as EDM's.) The paper's FID-50k, 1 and 2 steps: 3.55 and 2.93. Ours: not run.

The paper's teacher itself is edm_cifar10_ema. It is imported with `--network=cm_cifar10
--ema=params_ema`, and a run that starts from it needs `--config.model.augment_dim=0`.
"""

from configs.common.cifar10 import cifar10_config


def get_config():
    c = cifar10_config('ncsnpp_cifar10')
    c.steps = 800_000
    c.batch_size = 512
    c.ema_rates = (0.9999,)
    c.model.dropout = 0.0
    c.objective.update({'name': 'cd', 'levels': 18, 'solver': 'heun', 'target_ema': 0.0})
    c.objective.update({'distance': 'lpips', 'weight': 'uniform'})
    c.optimizer.update({'name': 'radam', 'learning_rate': 4e-4, 'warmup_steps': 19_531})
    c.init_from.workdir = 'runs/cifar10/edm_ve'
    c.teacher.workdir = 'runs/cifar10/edm_ve'
    c.sampling.ema = '0.9999'
    return c
