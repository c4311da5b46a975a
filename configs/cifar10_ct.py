"""Consistency training (CT) on CIFAR-10, unconditional, from data alone; arXiv 2303.01469.

    python -m cm_jax.train --config=configs/cifar10_ct.py --workdir=runs/cifar10/ct \
        --config.lpips.features=vgg16.pth --config.lpips.heads=vgg_lpips.pth

The distance is LPIPS, with the features of VGG-16 as torchvision publishes it and the heads of the
lpips package. The network is NCSN++. The global batch is 512: 800,000 steps see 410 million images.
The paper's FID-50k, 1 and 2 steps: 8.70 and 5.83. Ours: not run.

Products are float32's own (model.precision highest); the paper's training code asks for no
precision, which in JAX is TF32 or bfloat16 on accelerators.
"""

from configs.common.cifar10 import cifar10_config


def get_config():
    c = cifar10_config('ncsnpp_cifar10')
    c.steps = 800_000
    c.batch_size = 512
    c.ema_rates = (0.9999,)
    c.model.update({'augment_dim': 0, 'dropout': 0.0})
    c.objective.update({'name': 'ct', 'total_steps': c.get_ref('steps'), 's0': 2, 's1': 150})
    c.objective.update({'mu0': 0.9, 'distance': 'lpips', 'weight': 'uniform'})
    c.optimizer.update({'name': 'radam', 'learning_rate': 4e-4})
    c.sampling.ema = '0.9999'
    return c
