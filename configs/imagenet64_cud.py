"""Catch-up distillation (CUD), RK12, on ImageNet at 64x64, class-conditional, from data alone;
arXiv 2305.10769.

    python -m cm_jax.train --config=configs/imagenet64_cud.py --workdir=runs/imagenet64/cud \
        --config.dataset.path=PATH

PATH is a folder of images of 64x64 in one folder a class. The settings of the paper's code: ADM with
skip scaling, dropout 0.1; independent noise; h ~ U(0, 1/16); global batch 1024, 1,200,000 steps = 1,229
million images, of which the paper samples with the average at 500,000. Not the paper's: bfloat16 (it
has float16), the scale of the noise input, and no wavelet loss beside the squared error. Ours: not run.
"""

from cm_jax.models.presets import PRESETS
from configs.digits_flow import rectified_flow
from configs.imagenet64_adm import imagenet64_config


def get_config():
    settings = {'name': 'catch_up', 'order': 1, 'steps': 16, 'step_size': 'uniform'}
    c = rectified_flow(imagenet64_config(), **settings, share_dropout=False)
    c.steps = 1_200_000
    c.batch_size = 1024
    c.ema_rates = (0.9999432,)
    c.model.update(PRESETS['adm_imagenet64'].settings)
    c.model.update({'dropout': 0.1, 'dtype': 'bfloat16', 'skip_scaling': 0.75})
    c.model.noise_scale = 1000.0
    c.optimizer.update({'name': 'adam', 'learning_rate': 4e-4})
    c.sampling.ema = '0.9999432'
    return c
