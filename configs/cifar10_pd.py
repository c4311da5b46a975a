"""Progressive distillation (PD) of EDM's networks on CIFAR-10, unconditional; arXiv 2202.00512.

    python -m cm_jax.convert import --from=edm-cifar10-32x32-uncond-vp.pkl --network=ddpmpp_cifar10 \
        --workdir=runs/cifar10/edm
    python -m cm_jax.train --config=configs/cifar10_pd.py:ddpmpp --workdir=runs/cifar10/pd_ddpmpp

The variants are two published trainings:

    ddpmpp  the default: that of the paper and its code, here of DDPM++; the global batch is 128
    ncsnpp  the one that the code of consistency models compares with (arXiv 2303.01469), of NCSN++
            (cifar10_cd.py imports it); the global batch is 512

In both, 750,000 steps see 96 and 384 million images, those of the teacher not counted. The 8192
steps of the teacher become 1 in thirteen stages of 50,000 training steps, of 100,000 to 2 and to 1
steps, with the weights max(SNR, 1). As in both codes, images are flipped at random, the rate of
Adam falls from 5e-5 to 0 in each stage, where Adam begins anew, gradients are clipped to the norm
1, and no average is kept. Products are float32's own; the codes name no precision.

Of ddpmpp, not the paper's are the network and its teacher (the paper trains a U-Net of 256 channels
that gives x0 itself) and the noise levels, which are EDM's (the paper's are equal steps of a cosine
schedule); x0 is clipped in each step of sampling, as in its code. Of ncsnpp, whose images truncate
to bytes as in that code, the teacher is EDM's public network and not the authors' own, and the last
level is 0 and not 0.002.

The student of 8, 4, 2 and 1 steps is the snapshot of step 500,000, 550,000, 650,000 and 750,000:
`python -m cm_jax.evaluate --workdir=runs/cifar10/pd_ddpmpp --step=550000 --sampler=ddim@4,clip`.
The paper's FID-50k, 8, 4, 2 and 1 steps: 2.57, 3.00, 4.51 and 9.12. That of consistency models' run
in 1 step, as the authors of ECT quote it: 8.34. Ours: not run.
"""

from cm_jax.errors import check_name
from configs.common.cifar10 import cifar10_config

VARIANTS = {  # the network: its preset, the run of the teacher, the global batch, clip, byte rule
    'ddpmpp': ('ddpmpp_cifar10', 'edm', 128, ',clip', 'round'),
    'ncsnpp': ('ncsnpp_cifar10', 'edm_ve', 512, '', 'truncate'),
}
STAGES = 11 * (50_000,) + 2 * (100_000,)  # training steps; 8192 / 2^13 = 1


def get_config(variant='ddpmpp'):
    check_name('variant', variant, VARIANTS)
    network, teacher, batch_size, clip, byte_rule = VARIANTS[variant]
    c = cifar10_config(network)
    c.dataset.flip = True
    c.steps = sum(STAGES)
    c.batch_size = batch_size
    c.ema_rates = ()
    c.model.dropout = 0.0
    c.objective.update({'name': 'pd', 'start_steps': 8192, 'halve_every': STAGES})
    c.objective.weight = 'truncated_snr'
    c.optimizer.update({'name': 'adam', 'learning_rate': 5e-5, 'clip': 1.0})
    c.optimizer.update({'decay': 'linear', 'decay_steps': STAGES})
    c.init_from.workdir = f'runs/cifar10/{teacher}'
    c.trajectory.every = 10_000
    c.sampling.update({'sampler': 'ddim@1', 'ema': ''})
    c.evaluation.samplers = tuple(f'ddim@{n}{clip}' for n in (1, 2, 4, 8))
    c.evaluation.bytes = byte_rule
    return c
