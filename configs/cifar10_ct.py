"""Consistency training (CT) on CIFAR-10, unconditional, from data alone; arXiv 2303.01469.

    python -m cm_jax.train --config=configs/cifar10_ct.py --workdir=runs/cifar10/ct \
        --config.lpips.features=vgg16.pth --config.lpips.heads=vgg_lpips.pth

The distance is LPIPS, with the features of VGG-16 as torchvision publishes it and the heads of the
lpips package. The network is NCSN++. The global batch is 512: 800,000 steps see 410 million images,
flipped at random as in the paper's code. What that code publishes and scores is the average at step
740,000 (ct-lpips/checkpoint_74); with `--config.trajectory.emas=True` this run keeps it for
`evaluate --step=740000`. Two steps are those of cifar10_cd.py, since that code names none for CT;
x0 is clipped, and images truncate to bytes. Products are float32's own; the code names no
precision. The paper's FID-50k: not confirmed. Ours: not run.
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
