"""Progressive distillation (PD) of EDM's DDPM++ on CIFAR-10, unconditional; arXiv 2202.00512.

    python -m cm_jax.convert import --from=edm-cifar10-32x32-uncond-vp.pkl --network=ddpmpp_cifar10 \
        --workdir=runs/cifar10/edm
    python -m cm_jax.train --config=configs/cifar10_pd.py --workdir=runs/cifar10/pd

The global batch is 128: 500,000 steps see 64 million images, those of the teacher not counted. The
1024 steps of the teacher become 1 in ten stages of 50,000 training steps. Network, noise levels and
stages are ours, so that the run compares with the other configs; the learning rate is not annealed
within a stage. Ours: not run.

Products are float32's own (model.precision highest); the paper's precision is not known.
"""

from configs.common.cifar10 import cifar10_config


def get_config():
    c = cifar10_config('ddpmpp_cifar10')
    c.steps = 500_000
    c.batch_size = 128
    c.ema_rates = (0.9999,)
    c.model.dropout = 0.0
    c.objective.update({'name': 'pd', 'start_steps': 1024, 'halve_every': 50_000})
    c.objective.weight = 'truncated_snr'
    c.optimizer.update({'name': 'adam', 'learning_rate': 1e-4})
    c.init_from.workdir = 'runs/cifar10/edm'
    c.sampling.update({'sampler': 'ddim@1', 'ema': '0.9999'})
    c.evaluation.samplers = ('ddim@1', 'ddim@2', 'ddim@4', 'ddim@8')
    return c
