"""EDM diffusion teacher on CIFAR-10, unconditional; arXiv 2206.00364.

    python -m cm_jax.prepare --dataset=cifar10 --from=PATH
    python -m cm_jax.train --config=configs/cifar10_edm.py --workdir=runs/cifar10/teacher
    python -m cm_jax.train --config=configs/cifar10_edm.py:ncsnpp --workdir=runs/cifar10/ncsnpp

The paper's networks (VP: DDPM++, 55,733,891 parameters; VE: NCSN++, 56,397,827) and its training: the
global batch 512, 200 million images = 390,625 steps, learning rate 1e-3 after 10 million images of
warm-up, dropout 0.13, augmentation with probability 0.12 (the left-right flip is part of it: the data
are not flipped besides), and an average with a half-life of 0.5 million images: 0.9993 to a step. Not
yet the paper's: the shorter half-life of that average at the start.

The paper's FID-50k with Heun, 35 network evaluations: 1.97 (DDPM++), 1.98 (NCSN++). Ours: not run.
"""

from cm_jax.config import base_config
from cm_jax.errors import check_name
from cm_jax.models.presets import PRESETS

NETWORKS = {'ddpmpp': 'ddpmpp_cifar10', 'ncsnpp': 'ncsnpp_cifar10'}


def get_config(network='ddpmpp'):
    check_name('network', network, NETWORKS)
    c = base_config()
    c.steps = 390_625
    c.batch_size = 512
    c.ema_rates = (0.9993,)
    c.dataset.update({'source': 'tfds', 'name': 'cifar10', 'data_dir': ''})
    c.model.update(PRESETS[NETWORKS[network]].settings)
    c.model.update({'dropout': 0.13, 'dtype': 'float32'})
    c.objective.update({'name': 'edm', 'p_mean': -1.2, 'p_std': 1.2, 'sigma_data': 0.5})
    c.objective.augment = 0.12
    c.optimizer.update({'name': 'adam', 'learning_rate': 1e-3, 'warmup_steps': 19_531})
    c.train.resume_every = 2000
    c.trajectory.every = 20_000
    c.sampling.update({'sampler': 'heun@18', 'ema': '0.9993', 'every': 10_000})
    c.evaluation.samplers = ('heun@18',)
    return c
