"""Catch-up distillation (CUD), RK23, on MNIST, from data alone; arXiv 2305.10769.

    python -m cm_jax.prepare --dataset=mnist --from=PATH
    python -m cm_jax.train --config=configs/mnist_cud_rk23.py --workdir=runs/mnist/cud_rk23

The settings of the paper's code: two heads, of which the second samples; a prior over the noise,
learned beside it by a network of the same sizes; h ~ U(0, 1/16); global batch 256, 50,000 steps =
12.8 million images. Scores are in the features of Fashion-MNIST's LeNet, for want of one of
MNIST's. Result: not run.
"""

from configs.mnist_cud_rk12 import cud_config


def get_config():
    return cud_config(2)
