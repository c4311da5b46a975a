"""Consistency training (CT) on ImageNet at 64x64, class-conditional; arXiv 2303.01469.

    python -m cm_jax.train --config=configs/imagenet64_ct.py:scratch \
        --workdir=runs/imagenet64/ct_scratch \
        --config.dataset.path=PATH --config.lpips.features=vgg16.pth --config.lpips.heads=vgg_lpips.pth

The variants differ in the first weights. scratch (the default): none, as the paper says. teacher:
those of the run of imagenet64_adm.py, since the public command of the paper starts the student from
a teacher. That is edm_imagenet64_ema.pt: imported as in imagenet64_cd.py, it is taken with
`--config.init_from.workdir=runs/imagenet64/edm_cm --config.init_from.ema=` and
`--config.model.noise_scale=1000.0`. The paper and its command contradict each other here, and which
of them gave its numbers is not known.

PATH is a folder of images of 64x64 with one folder for each class, by ADM's crop (docs/data.md).
The distance is LPIPS with average pooling, as in the paper's code, with the features of VGG-16 as
torchvision publishes it and the heads of the lpips package. The network is ADM. The global batch is
2048: 800,000 steps see 1,638 million images. As in the paper's code, images are flipped at random,
two steps are the levels 0 and 106 of 201 (80 and 1.913), x0 is clipped, and images truncate to
bytes. It computes in float32 at precision high, as imagenet64_cd.py does. The paper's FID-50k: not
confirmed. Ours: not run.
"""

from cm_jax.errors import check_name
from configs.common.imagenet64 import comparing, imagenet64_config

VARIANTS = ('scratch', 'teacher')  # where the weights start


def get_config(variant='scratch'):
    check_name('variant', variant, VARIANTS)
    c = comparing(imagenet64_config('adm_imagenet64'))
    c.dataset.update({'flip': True, 'crop': 'adm'})
    c.steps = 800_000
    c.batch_size = 2048
    c.ema_rates = (0.9999432,)
    # The paper's noise input is 250 ln t; EDM's weights take ln(t)/4.
    c.model.update({'dropout': 0.0, 'noise_scale': 1000.0})
    if variant == 'teacher':
        c.init_from.update({'workdir': 'runs/imagenet64/adm', 'ema': '0.999943'})
        c.model.noise_scale = 1.0
    c.objective.update({'name': 'ct', 'total_steps': c.get_ref('steps'), 's0': 2, 's1': 200})
    c.objective.update({'mu0': 0.95, 'distance': 'lpips', 'weight': 'uniform'})
    c.optimizer.update({'name': 'radam', 'learning_rate': 1e-4})
    c.lpips.pooling = 'average'
    c.sampling.update({'sampler': 'onestep', 'ema': '0.9999432'})
    c.evaluation.samplers = ('onestep', 'multistep@idx:0,106,200/201,clip')
    c.evaluation.bytes = 'truncate'
    return c
