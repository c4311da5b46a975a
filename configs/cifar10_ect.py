"""Easy consistency tuning (ECT) on CIFAR-10, from EDM's DDPM++, unconditional; arXiv 2406.14548.

    python -m cm_jax.convert import --from=edm-cifar10-32x32-uncond-vp.pkl --network=ddpmpp_cifar10 \
        --workdir=runs/cifar10/edm
    python -m cm_jax.train --config=configs/cifar10_ect.py --workdir=runs/cifar10/ect

The global batch is 128: 200,000 steps see 25.6 million images, those of the teacher not counted.
There are eight stages of 25,000 steps, with q = 2. As in the paper's code, images are not flipped,
products are float32's own (it turns TF32 off), and the denoiser that samplers see is the identity
at the level 0.003. The paper's FID-50k, 1 and 2 steps (middle level 0.821): 3.86 and 2.15; at
100,000 steps 4.54 and 2.20, at 400,000 steps 3.60 and 2.11. Its public script is that of 200,000
steps. Each snapshot holds the average, so that `evaluate --step=100000` scores this run there; for
runs with eight stages of their own, set --config.steps and --config.objective.double_every=12_500
or 50_000. Ours: not run.
"""

from configs.common.cifar10 import cifar10_config


def get_config():
    c = cifar10_config('ddpmpp_cifar10')
    c.steps = 200_000
    c.batch_size = 128
    c.ema_rates = (0.9999,)
    c.model.dropout = 0.2
    c.objective.update({'name': 'ect', 'p_mean': -1.1, 'p_std': 2.0, 'q': 2.0, 'k': 8.0, 'b': 1.0})
    c.objective.update({'double_every': 25_000, 'c': 0.0, 'weight': 'inverse_gap'})
    c.objective.boundary = 0.003
    c.optimizer.update({'name': 'radam', 'learning_rate': 1e-4})
    c.init_from.workdir = 'runs/cifar10/edm'
    c.trajectory.emas = True
    c.sampling.ema = '0.9999'
    return c
