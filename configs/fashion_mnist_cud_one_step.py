"""The one-step stage of catch-up distillation (CUD), RK12, on Fashion-MNIST; arXiv 2305.10769.

    python -m cm_jax.train --config=configs/fashion_mnist_cud_one_step.py \
        --workdir=runs/fashion_mnist/cud_one_step

It starts and learns from the run of fashion_mnist_cud.py. The global batch is 128: 10,000 steps see
1,280,000 images of noise, those of that run not counted. Ours: not run to its end.
"""

from configs import fashion_mnist_cud
from configs.common.flow import one_step_stage


def get_config():
    c = one_step_stage(fashion_mnist_cud.get_config(), 'runs/fashion_mnist/cud', 10_000, 0.999)
    c.optimizer.update({'learning_rate': 3e-4, 'warmup_steps': 0})
    return c
