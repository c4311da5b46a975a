r"""MeanFlow on Fashion-MNIST, from data alone; arXiv 2505.13447.

    python -m cm_jax.prepare --dataset=fashion_mnist
    python -m cm_jax.train --config=configs/fashion_mnist_mean_flow.py \
      --workdir=runs/fashion_mnist/mean_flow

The training is that of fashion_mnist_flow.py, with the objective of the paper's code. The global batch
is 128: 20,000 steps see 2,560,000 images. Ours: not run to its end.
"""

from configs.common.fashion_mnist import flow_config


def get_config():
    c = flow_config(name='mean_flow', time_law='v1', equal_share=0.25, norm_p=0.75)
    c.model.times = 2
    c.sampling.sampler = 'onestep'
    c.evaluation.samplers = ('onestep', 'jump@2')
    return c
