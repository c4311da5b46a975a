"""EDM diffusion teacher on CIFAR-10, unconditional or by class; arXiv 2206.00364.

    python -m cm_jax.prepare --dataset=cifar10 --from=PATH
    python -m cm_jax.train --config=configs/cifar10_edm.py:ddpmpp --workdir=runs/cifar10/edm_ddpmpp

The variants are the paper's networks: ddpmpp (the default; the paper's VP, 55,733,891 parameters)
and ncsnpp (the paper's VE, 56,397,827 parameters); ddpmpp_cond and ncsnpp_cond are given the class
of each image (55,735,299 and 56,400,643 parameters). The training is the paper's: the global batch
is 512, 390,625 steps see 200 million images, the learning rate is 1e-3 after 10 million images of
warm-up, dropout is 0.13, and augmentation has probability 0.12 (the left-right flip is part of it:
images are not flipped besides). Products are float32's own, as in the paper's code, which turns
TF32 off. The average has a half-life of 0.5 million images, which is 0.9993 for one step. The
paper's shorter half-life of that average at the start is not implemented.

The paper's FID-50k with Heun, 35 network evaluations: 1.97 (ddpmpp), 1.79 (ddpmpp_cond); of ncsnpp
and ncsnpp_cond not confirmed. Ours: not run.
"""

from cm_jax.errors import check_name
from configs.common.cifar10 import cifar10_config

VARIANTS = {  # the network
    'ddpmpp': 'ddpmpp_cifar10',
    'ncsnpp': 'ncsnpp_cifar10',
    'ddpmpp_cond': 'ddpmpp_cifar10_cond',
    'ncsnpp_cond': 'ncsnpp_cifar10_cond',
}


def get_config(variant='ddpmpp'):
    check_name('variant', variant, VARIANTS)
    c = cifar10_config(VARIANTS[variant])
    c.class_conditional = variant.endswith('_cond')
    c.steps = 390_625
    c.batch_size = 512
    c.ema_rates = (0.9993,)
    c.model.dropout = 0.13
    c.objective.update({'name': 'edm', 'p_mean': -1.2, 'p_std': 1.2, 'augment': 0.12})
    c.optimizer.update({'name': 'adam', 'learning_rate': 1e-3, 'warmup_steps': 19_531})
    c.trajectory.every = 20_000
    c.sampling.update({'sampler': 'heun@18', 'ema': '0.9993', 'every': 10_000})
    c.evaluation.samplers = ('heun@18',)
    return c
