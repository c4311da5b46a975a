"""What the configs on ImageNet at 64x64 pixels share: a folder of images in 1,000 classes."""

from cm_jax.config import base_config
from cm_jax.models.presets import PRESETS

# The statistics that EDM's and the consistency models' code compare with; docs/evaluation.md.
EDM_REFERENCE = 'imagenet-64x64.npz'
ADM_REFERENCE = 'VIRTUAL_imagenet64_labeled.npz'


def imagenet64_config(network, reference=ADM_REFERENCE):
    """Returns a config with the data and a published network, a name of `cm_jax/models/presets.py`.

    Pictures and scores are those of a diffusion model, and so is bfloat16, in place of the papers'
    float16 with loss scaling. The FID compares with `reference`: a file of statistics, or with 'train'
    the images that are trained on, as in the code of EDM2 and ECT.
    """
    c = base_config()
    c.class_conditional = True
    c.dataset.update({'source': 'folder', 'path': ''})
    c.model.update(PRESETS[network].settings)
    c.model.update({'dtype': 'bfloat16', 'precision': 'default'})
    c.objective.sigma_data = 0.5
    c.train.resume_every = 2000
    c.trajectory.every = 20_000
    c.sampling.update({'sampler': 'heun@40', 'every': 10_000})
    c.evaluation.samplers = ('heun@40',)
    c.evaluation.update({'extractor': 'inception', 'samples': 50_000, 'reference': reference})
    return c


def comparing(c):
    """Returns the config `c` of a consistency method, in float32 at precision high.

    That is TF32 on a GPU, whose products have float16's 11 bits, and 3 products of bfloat16 on a TPU.
    bfloat16 would swamp the difference that the method learns from.
    """
    c.model.update({'dtype': 'float32', 'precision': 'high'})
    return c
