"""The one-step stage of catch-up distillation (CUD), RK12, on Fashion-MNIST; arXiv 2305.10769.

    python -m cm_jax.train --config=configs/fashion_mnist_cud_one_step.py \
        --workdir=runs/fashion_mnist/cud_one_step

It starts and learns from the run of fashion_mnist_cud_rk12.py. Global batch 128, 10,000 steps =
1,280,000 images of noise, those of that run not counted. Result: not run to its end.
"""

from configs import fashion_mnist_cud_rk12
from configs.digits_cud_one_step import one_step_stage


def get_config():
    c = fashion_mnist_cud_rk12.get_config()
    c = one_step_stage(c, 'runs/fashion_mnist/cud_rk12', 10_000, 0.999)
    c.optimizer.update({'learning_rate': 3e-4, 'warmup_steps': 0})
    return c
