"""EDM diffusion teacher on ImageNet at 64x64, class-conditional, with ADM; arXiv 2206.00364.

    python -m cm_jax.train --config=configs/imagenet64_adm.py --workdir=runs/imagenet64/adm \
        --config.dataset.path=PATH

PATH is a folder of images of 64x64 in one folder a class. The paper's network (295,899,267
parameters) and training: global batch 4096, 2,500 million images = 610,352 steps, learning rate 1e-4
after 10 million images of warm-up, dropout 0.1, no augmentation, an average with a half-life of 50
million images: 0.999943 to a step.

The paper's FID-50k with its stochastic sampler, 511 network evaluations: 1.36. Ours: not run.
"""

from cm_jax.config import base_config
from cm_jax.models.presets import PRESETS


def imagenet64_config():
    """What the runs on ImageNet-64 share."""
    c = base_config()
    c.class_conditional = True
    c.dataset.update({'source': 'folder', 'path': ''})
    c.objective.sigma_data = 0.5
    c.train.resume_every = 2000
    c.trajectory.every = 20_000
    c.sampling.update({'sampler': 'heun@40', 'every': 10_000})
    c.evaluation.samplers = ('heun@40',)
    return c


def get_config():
    c = imagenet64_config()
    c.steps = 610_352
    c.batch_size = 4096
    c.ema_rates = (0.999943,)
    c.model.update(PRESETS['adm_imagenet64'].settings)
    c.model.update({'dropout': 0.1, 'dtype': 'bfloat16'})
    c.objective.update({'name': 'edm', 'p_mean': -1.2, 'p_std': 1.2})
    c.optimizer.update({'name': 'adam', 'learning_rate': 1e-4, 'warmup_steps': 2441})
    c.sampling.ema = '0.999943'
    return c
