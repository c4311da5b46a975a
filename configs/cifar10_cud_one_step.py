"""The one-step stage of catch-up distillation (CUD), RK12, on CIFAR-10; arXiv 2305.10769.

    python -m cm_jax.train --config=configs/cifar10_cud_one_step.py --workdir=runs/cifar10/cud_one_step

It starts and learns from the run of cifar10_cud_rk12.py, unconditional. As the paper's code: Adam at
2e-4, three phases, but on noise that never repeats, not on 50,000 pairs. Global batch 128, 120,000
steps = 15.4 million images of noise: with the 500,000 of that run, the 620,000 steps of the abstract.
The paper's FID-50k in one step: 3.37. Ours: not run.
"""

from configs import cifar10_cud_rk12
from configs.digits_cud_one_step import one_step_stage


def get_config():
    c = one_step_stage(cifar10_cud_rk12.get_config(), 'runs/cifar10/cud_rk12', 120_000, 0.9999)
    c.optimizer.warmup_steps = 0
    return c
