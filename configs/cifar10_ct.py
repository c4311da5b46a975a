"""Consistency training (CT) on CIFAR-10, unconditional, from data alone; arXiv 2303.01469.

    python -m cm_jax.train --config=configs/cifar10_ct.py --workdir=runs/cifar10/ct \
        --config.lpips.features=vgg16.pth --config.lpips.heads=vgg_lpips.pth

Images are flipped at random, as in the paper's code.

The distance is LPIPS, with the features of VGG-16 as torchvision publishes it and the heads of the
lpips package. The network is NCSN++. The global batch is 512: 800,000 steps see 410 million images.
The two steps are those of the paper's code, which clips x0: indices 0 and 11 of 18 levels, 80 and
0.585; images truncate to bytes. The paper's FID-50k: not confirmed. Ours: not run.

Products are float32's own (model.precision highest); the paper's training code asks for no
precision, which in JAX is TF32 or bfloat16 on accelerators.
"""

from configs.common.cifar10 import CM_TWO_STEPS, cifar10_config


def get_config():
    c = cifar10_config('ncsnpp_cifar10')
    c.dataset.flip = True
    c.steps = 800_000
    c.batch_size = 512
    c.ema_rates = (0.9999,)
    c.model.update({'augment_dim': 0, 'dropout': 0.0})
    c.objective.update({'name': 'ct', 'total_steps': c.get_ref('steps'), 's0': 2, 's1': 150})
    c.objective.update({'mu0': 0.9, 'distance': 'lpips', 'weight': 'uniform'})
    c.optimizer.update({'name': 'radam', 'learning_rate': 4e-4})
    c.sampling.ema = '0.9999'
    c.evaluation.update({'samplers': CM_TWO_STEPS, 'bytes': 'truncate'})
    return c
