"""Improved consistency training (iCT) on CIFAR-10, unconditional, from data alone; arXiv 2310.14189.

    python -m cm_jax.train --config=configs/cifar10_ict.py --workdir=runs/cifar10/ict

The network is NCSN++ with Fourier scale 0.02. The global batch is 1024: 400,000 steps see 410
million images, in eight stages from 10 to 1280 gaps. The paper's code is not public. The settings
here are second-hand, from accounts of the paper (docs/recipes.md has the source of each); that
images are not flipped and that products are float32's own, as the last gaps are small, is ours. The
paper's FID-50k, 1 and 2 steps (middle level 0.821): 2.83 and 2.46. Ours: not run.
"""

from configs.common.cifar10 import cifar10_config


def get_config():
    c = cifar10_config('ncsnpp_cifar10')
    c.steps = 400_000
    c.batch_size = 1024
    c.ema_rates = (0.99993,)
    c.model.update({'embedding_scale': 0.02, 'augment_dim': 0, 'dropout': 0.3})
    c.objective.update({'name': 'ict', 'total_steps': c.get_ref('steps'), 's0': 10, 's1': 1280})
    c.objective.update({'p_mean': -1.1, 'p_std': 2.0, 'weight': 'inverse_gap'})
    c.optimizer.update({'name': 'radam', 'learning_rate': 1e-4})
    c.sampling.ema = '0.99993'
    return c
