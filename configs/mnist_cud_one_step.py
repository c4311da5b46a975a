"""The one-step stage of catch-up distillation (CUD), RK12, on MNIST; arXiv 2305.10769.

    python -m cm_jax.train --config=configs/mnist_cud_one_step.py --workdir=runs/mnist/cud_one_step

It starts and learns from the run of mnist_cud.py:rk12. As in the paper's code, Adam trains three
phases of 40,000 steps, the student has no scaling of the skips (the teacher has), and the weights
themselves are sampled. Unlike there, the noise never repeats, where the paper has 50,000 pairs.
Products are float32's own; the code names no precision. The global batch is 256: 120,000 steps see
30.7 million images of noise, those of that run not counted. Ours: not run.
"""

from configs import mnist_cud
from configs.common.flow import one_step_stage


def get_config():
    c = one_step_stage(mnist_cud.get_config('rk12'), 'runs/mnist/cud_rk12', 120_000, 0.9999)
    c.optimizer.warmup_steps = 0
    c.trajectory.every = 10_000
    return c
