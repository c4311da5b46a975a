"""The one-step stage of catch-up distillation (CUD), RK12, on MNIST; arXiv 2305.10769.

    python -m cm_jax.train --config=configs/mnist_cud_one_step.py --workdir=runs/mnist/cud_one_step

It starts and learns from the run of mnist_cud_rk12.py. As the paper's code: Adam, three phases of
40,000 steps, but on noise that never repeats, not on 50,000 pairs. Global batch 256, 120,000 steps =
30.7 million images of noise, those of that run not counted. Result: not run.
"""

from configs import mnist_cud_rk12
from configs.digits_cud_one_step import one_step_stage


def get_config():
    c = one_step_stage(mnist_cud_rk12.get_config(), 'runs/mnist/cud_rk12', 120_000, 0.9999)
    c.optimizer.warmup_steps = 0
    c.trajectory.every = 10_000
    return c
