"""MeanFlow on scikit-learn's digits, from data alone; arXiv 2505.13447.

    python -m cm_jax.train --config=configs/digits_mean_flow.py --workdir=runs/digits/mean_flow

The training is that of digits_flow.py, with the objective of the paper's code. The global batch is
64: 1,000 steps see 64,000 images. Ours, of one training seed (0), on one thread of an Intel Xeon:
`fd_lenet_5k` 9.65 in one step and 5.12 in two (jump@2) by `evaluate --ema=0.995`, and of the weights
themselves 10.72 and 9.83; each is the mean of two noise seeds.
"""

from configs.common.digits import flow_config


def get_config():
    c = flow_config(name='mean_flow', time_law='v1', equal_share=0.25, norm_p=0.75)
    c.model.times = 2
    c.sampling.sampler = 'onestep'
    c.evaluation.samplers = ('onestep', 'jump@2')
    return c
