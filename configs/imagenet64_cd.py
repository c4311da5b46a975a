"""Consistency distillation (CD) on ImageNet at 64x64, class-conditional, from an ADM teacher;
arXiv 2303.01469.

    python -m cm_jax.train --config=configs/imagenet64_cd.py:lpips \
        --workdir=runs/imagenet64/cd_lpips \
        --config.dataset.path=PATH --config.lpips.features=vgg16.pth --config.lpips.heads=vgg_lpips.pth

It starts and learns from the run of imagenet64_adm.py. PATH is a folder of images of 64x64 with one
folder for each class, by ADM's crop (docs/data.md). The variants are the distances of the public
commands: lpips (the default; with average pooling, as in the paper's code, with the features of
VGG-16 as torchvision publishes it and the heads of the lpips package) and l2, whose command names
no files. The network is ADM. The global batch is 2048: 600,000 steps see 1,229 million images,
those of the teacher not counted. There are 40 levels, and the solver is Heun's. As in the paper's
code, images are flipped at random, two steps are the levels 0 and 22 of the 40 (80 and 1.382), x0
is clipped, and images truncate to bytes. It computes in float32 at precision high (the teacher in
the dtype of its own run), in place of float16 with a loss scale: TF32 on a GPU has as many bits,
and on a TPU it is finer. The paper's FID-50k of lpips, 1 and 2 steps: 6.20 and 4.70; of l2 not
confirmed. Ours: not run.

The paper's own teacher is edm_imagenet64_ema.pt. To start and learn from it as the paper did:

    python -m cm_jax.convert import --from=edm_imagenet64_ema.pt --network=cm_imagenet64 \
        --workdir=runs/imagenet64/edm_cm
    python -m cm_jax.train --config=configs/imagenet64_cd.py:lpips \
        --workdir=runs/imagenet64/cd_lpips_cm --config.model.noise_scale=1000.0 \
        --config.init_from.workdir=runs/imagenet64/edm_cm --config.init_from.ema= \
        --config.teacher.workdir=runs/imagenet64/edm_cm --config.teacher.ema= \
        --config.dataset.path=PATH --config.lpips.features=vgg16.pth --config.lpips.heads=vgg_lpips.pth

EDM's edm-imagenet-64x64-cond-adm.pkl (`--network=adm_imagenet64`) fits in the same way without the
noise scale.
"""

from cm_jax.errors import check_name
from configs.common.imagenet64 import comparing, imagenet64_config

VARIANTS = ('lpips', 'l2')  # the distance


def get_config(variant='lpips'):
    check_name('variant', variant, VARIANTS)
    c = comparing(imagenet64_config('adm_imagenet64'))
    c.dataset.update({'flip': True, 'crop': 'adm'})
    c.steps = 600_000
    c.batch_size = 2048
    c.ema_rates = (0.9999432,)
    c.model.update({'dropout': 0.0, 'noise_scale': 1.0})
    c.objective.update({'name': 'cd', 'levels': 40, 'solver': 'heun', 'target_ema': 0.95})
    c.objective.update({'distance': variant, 'weight': 'uniform'})
    c.optimizer.update({'name': 'radam', 'learning_rate': 8e-6})
    c.init_from.update({'workdir': 'runs/imagenet64/adm', 'ema': '0.999943'})
    c.teacher.update({'workdir': 'runs/imagenet64/adm', 'ema': '0.999943'})
    c.lpips.pooling = 'average'
    c.sampling.update({'sampler': 'onestep', 'ema': '0.9999432'})
    c.evaluation.samplers = ('onestep', 'multistep@idx:0,22,39/40,clip')
    c.evaluation.bytes = 'truncate'
    return c
