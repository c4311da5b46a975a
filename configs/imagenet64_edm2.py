"""EDM diffusion teacher on ImageNet at 64x64, class-conditional, with EDM2; arXiv 2312.02696.

    python -m cm_jax.train --config=configs/imagenet64_edm2.py:s --workdir=runs/imagenet64/edm2_s \
        --config.dataset.path=PATH

PATH is a folder of images of 64x64 with one folder for each class, by ADM's crop (docs/data.md), as
EDM2's dataset tool makes them. The variants are the sizes of EDM2's public code at 64x64 (its XXL
is for 512x512 alone); s is the default. The global batch of 2048, learning rates, dropout and
numbers of images are those of that code, and the FID-50k of its public networks are the paper's:

    variant  parameters     rate    dropout  million images  the paper's FID-50k, 63 evaluations
    s        280,209,381    0.0100  0        1,074           1.58
    m        497,803,173    0.0090  0.1      2,147           1.43
    l        777,492,325    0.0080  0.1      1,074           1.33
    xl       1,119,276,837  0.0070  0.1      671             1.33
    xs       124,710,949    0.0120  0        1,074           not known

Images are not flipped. The rate rises over 10 million images and falls with the square root of the
step from step 35,000. The loss is the paper's, weighted by the uncertainty that the network
estimates; it computes in bfloat16, where the paper's code has float16. The averages kept are the
paper's two, from which `--ema=posthoc0.075` and the like are made; the paper's table has the best
average of each size. docs/evaluation.md has the command of autoguidance, s guided by xs. Ours: not
run.
"""

from cm_jax.errors import check_name
from configs.common.imagenet64 import imagenet64_config

VARIANTS = {  # the size: learning rate, dropout, images
    's': (0.0100, 0.0, 1024 * 2**20),
    'm': (0.0090, 0.1, 2048 * 2**20),
    'l': (0.0080, 0.1, 1024 * 2**20),
    'xl': (0.0070, 0.1, 640 * 2**20),
    'xs': (0.0120, 0.0, 1024 * 2**20),
}


def get_config(variant='s'):
    check_name('variant', variant, VARIANTS)
    rate, dropout, images = VARIANTS[variant]
    c = imagenet64_config(f'edm2_imagenet64_{variant}', 'train')
    c.dataset.crop = 'adm'
    c.batch_size = 2048
    c.steps = images // c.batch_size
    c.ema_rates = ()
    c.ema_sigma_rels = (0.05, 0.1)
    c.trajectory.emas = True
    c.model.dropout = dropout
    c.objective.update({'name': 'edm', 'p_mean': -0.8, 'p_std': 1.6, 'uncertainty': True})
    c.optimizer.update({'name': 'adam', 'learning_rate': rate, 'b2': 0.99, 'warmup_steps': 4883})
    c.optimizer.update({'decay': 'inverse_sqrt', 'decay_steps': 35_000})
    c.sampling.update({'sampler': 'heun@32', 'ema': 'power0.1'})
    c.evaluation.samplers = ('heun@32',)
    return c
