"""Progressive distillation (PD) of EDM's DDPM++ on CIFAR-10, unconditional; arXiv 2202.00512.

    python -m cm_jax.convert import --from=edm-cifar10-32x32-uncond-vp.pkl --network=ddpmpp_cifar10 \
        --workdir=runs/cifar10/edm
    python -m cm_jax.train --config=configs/cifar10_pd.py --workdir=runs/cifar10/pd

The training is the paper's: the 8192 steps of the teacher become 1 in thirteen stages of 50,000
training steps, of 100,000 to 2 and to 1 steps, with the weights max(SNR, 1). As in its public code,
images are flipped at random, the rate of Adam falls from 5e-5 to 0 in each stage, where Adam begins
anew, gradients are clipped to the norm 1, and no average is kept. The global batch is 128: 750,000
steps see 96 million images, those of the teacher not counted. Not the paper's are the network and
its teacher (the paper trains a U-Net of 256 channels), the noise levels, which are EDM's (the
paper's are equal steps of a cosine schedule). Products are float32's own; its code names no
precision.

The student of 8, 4, 2 and 1 steps is the snapshot of step 500,000, 550,000, 650,000 and 750,000:
`python -m cm_jax.evaluate --workdir=runs/cifar10/pd --step=550000 --sampler=ddim@4`. The paper's
FID-50k, 8, 4, 2 and 1 steps: 2.57, 3.00, 4.51 and 9.12. Ours: not run.
"""

from configs.common.cifar10 import cifar10_config

STAGES = 11 * (50_000,) + 2 * (100_000,)  # training steps; 8192 / 2^13 = 1


def get_config():
    c = cifar10_config('ddpmpp_cifar10')
    c.dataset.flip = True
    c.steps = sum(STAGES)
    c.batch_size = 128
    c.ema_rates = ()
    c.model.dropout = 0.0
    c.objective.update({'name': 'pd', 'start_steps': 8192, 'halve_every': STAGES})
    c.objective.weight = 'truncated_snr'
    c.optimizer.update({'name': 'adam', 'learning_rate': 5e-5, 'clip': 1.0})
    c.optimizer.update({'decay': 'linear', 'decay_steps': STAGES})
    c.init_from.workdir = 'runs/cifar10/edm'
    c.trajectory.every = 10_000
    c.sampling.update({'sampler': 'ddim@1', 'ema': ''})
    c.evaluation.samplers = ('ddim@1', 'ddim@2', 'ddim@4', 'ddim@8')
    return c
