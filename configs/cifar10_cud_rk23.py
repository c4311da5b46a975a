"""Catch-up distillation (CUD), RK23, on CIFAR-10, unconditional, from data alone; arXiv 2305.10769.

    python -m cm_jax.prepare --dataset=cifar10 --from=PATH
    python -m cm_jax.train --config=configs/cifar10_cud_rk23.py --workdir=runs/cifar10/cud_rk23

The settings of the paper's code, but that images are not flipped: DDPM++, two heads, of which the
second samples; a prior over the noise, learned beside it; h ~ U(0, 1/16); global batch 128, 500,000
steps = 64 million images. The paper's best FID-50k: 2.80 at 15 network evaluations, as many as heun@8
takes; 3.37 in one step, after a further stage that is not part of this run. Ours: not run.
"""

from configs.cifar10_cud_rk12 import cud_config


def get_config():
    return cud_config(2)
