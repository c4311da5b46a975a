"""Consistency distillation (CD) on ImageNet at 64x64, class-conditional, from an ADM teacher;
arXiv 2303.01469.

    python -m cm_jax.train --config=configs/imagenet64_cd.py --workdir=runs/imagenet64/cd \
        --config.dataset.path=PATH --config.lpips.features=vgg16.pth --config.lpips.heads=vgg_lpips.pth

It starts and learns from the run of imagenet64_adm.py. PATH is a folder of images of 64x64 with one
folder for each class. The distance is LPIPS with average pooling, as in the paper's code, with the
features of VGG-16 as torchvision publishes it and the heads of the lpips package. The network is
ADM. The global batch is 2048: 600,000 steps see 1,229 million images, those of the teacher not
counted. There are 40 levels, and the solver is Heun's. The paper's FID-50k, 1 and 2 steps: 6.20 and
4.70. Ours: not run.

The paper's teacher itself is edm_imagenet64_ema.pt, imported with `--network=cm_imagenet64`; a run
that starts from it needs `--config.model.noise_scale=1000.0`. EDM's edm-imagenet-64x64-cond-adm.pkl
(`--network=adm_imagenet64`) fits as it is. Imported weights have no averages: for both add
`--config.init_from.ema= --config.teacher.ema=`.
"""

from configs.common.imagenet64 import imagenet64_config


def get_config():
    c = imagenet64_config('adm_imagenet64')
    c.steps = 600_000
    c.batch_size = 2048
    c.ema_rates = (0.9999432,)
    c.model.dropout = 0.0
    c.objective.update({'name': 'cd', 'levels': 40, 'solver': 'heun', 'target_ema': 0.95})
    c.objective.update({'distance': 'lpips', 'weight': 'uniform'})
    c.optimizer.update({'name': 'radam', 'learning_rate': 8e-6})
    c.init_from.update({'workdir': 'runs/imagenet64/adm', 'ema': '0.999943'})
    c.teacher.update({'workdir': 'runs/imagenet64/adm', 'ema': '0.999943'})
    c.lpips.pooling = 'average'
    c.sampling.update({'sampler': 'onestep', 'ema': '0.9999432'})
    c.evaluation.samplers = ('onestep', 'multistep@80,1.526')
    return c
