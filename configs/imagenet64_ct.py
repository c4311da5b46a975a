"""Consistency training (CT) on ImageNet at 64x64, class-conditional, from data alone; arXiv 2303.01469.

    python -m cm_jax.train --config=configs/imagenet64_ct.py --workdir=runs/imagenet64/ct \
        --config.dataset.path=PATH --config.lpips.features=vgg16.pth --config.lpips.heads=vgg_lpips.pth

PATH is a folder of images of 64x64 with one folder for each class. The distance is LPIPS with
average pooling, as in the paper's code, with the features of VGG-16 as torchvision publishes it and
the heads of the lpips package. The network is ADM. The global batch is 2048: 800,000 steps see
1,638 million images. The paper's FID-50k, 1 and 2 steps: 13.0 and 11.1. Ours: not run.

The paper says that CT starts from scratch, as here. Its public command starts the student from
edm_imagenet64_ema.pt, imported with `--network=cm_imagenet64`: `--config.init_from.workdir=FOLDER`.
"""

from configs.common.imagenet64 import imagenet64_config


def get_config():
    c = imagenet64_config('adm_imagenet64')
    c.steps = 800_000
    c.batch_size = 2048
    c.ema_rates = (0.9999432,)
    c.model.noise_scale = 1000.0  # 250 ln t, as in the paper; EDM's weights take ln(t)/4
    c.model.dropout = 0.0
    c.objective.update({'name': 'ct', 'total_steps': c.get_ref('steps'), 's0': 2, 's1': 200})
    c.objective.update({'mu0': 0.95, 'distance': 'lpips', 'weight': 'uniform'})
    c.optimizer.update({'name': 'radam', 'learning_rate': 1e-4})
    c.lpips.pooling = 'average'
    c.sampling.update({'sampler': 'onestep', 'ema': '0.9999432'})
    c.evaluation.samplers = ('onestep', 'multistep@80,1.526')
    return c
