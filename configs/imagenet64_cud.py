"""Catch-up distillation (CUD), RK12, on ImageNet at 64x64, class-conditional, from data alone;
arXiv 2305.10769.

    python -m cm_jax.train --config=configs/imagenet64_cud.py --workdir=runs/imagenet64/cud \
        --config.dataset.path=PATH

PATH is a folder of images of 64x64 with one folder for each class, by ADM's crop (docs/data.md).
The settings are those of the paper's code: ADM with skip scaling and dropout 0.1, independent
noise, h ~ U(0, 1/16), the loss of the wavelet's details, images that are flipped at random, and the
global batch 1024: 1,200,000 steps see 1,229 million images. As there, samples are taken by Euler's
steps and by a two-step solver (its dpm_solver_2 is adams2), and truncate to bytes. The paper
samples with the average at step 500,000, so each snapshot holds the average. Not the paper's are
bfloat16 (it has float16), and that x0 is not clipped in each step of sampling. The paper's FID-50k
is not known here. Ours: not run.
"""

from configs.common.flow import catch_up, rectified_flow
from configs.common.imagenet64 import imagenet64_config


def get_config():
    objective = catch_up(1) | {'high_frequency_weight': 1.0}
    c = rectified_flow(imagenet64_config('adm_imagenet64'), **objective)
    c.dataset.update({'flip': True, 'crop': 'adm'})
    c.steps = 1_200_000
    c.batch_size = 1024
    c.ema_rates = (0.9999432,)
    c.model.update({'dropout': 0.1, 'skip_scaling': 0.75})
    c.optimizer.update({'name': 'adam', 'learning_rate': 4e-4})
    c.trajectory.emas = True
    c.sampling.ema = '0.9999432'
    c.evaluation.samplers = ('euler@16', 'adams2@6', 'euler@8', 'euler@4')
    c.evaluation.bytes = 'truncate'
    return c
