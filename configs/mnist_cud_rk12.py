"""Catch-up distillation (CUD), RK12, on MNIST, from data alone; arXiv 2305.10769.

    python -m cm_jax.prepare --dataset=mnist --from=PATH
    python -m cm_jax.train --config=configs/mnist_cud_rk12.py --workdir=runs/mnist/cud_rk12

The settings of the paper's code: one head; a prior over the noise, learned beside it by a network
of the same sizes; h ~ U(0, 1/16); global batch 256, 50,000 steps = 12.8 million images. Scores are
in the features of Fashion-MNIST's LeNet, for want of one of MNIST's. Result: not run.
"""

from cm_jax.config import base_config
from configs.digits_flow import rectified_flow

NETWORK = {'name': 'song_unet', 'channels': 32, 'channel_mult': (2, 2, 2), 'num_blocks': 2}
NETWORK |= {'attn_resolutions': (16,), 'dropout': 0.13}  # the prior's, too


def cud_config(order):
    """CUD's training on MNIST with as many heads; the last of them samples."""
    settings = {'name': 'catch_up', 'order': order, 'head': order, 'steps': 16}
    settings |= {'step_size': 'uniform', 'share_dropout': False}
    c = rectified_flow(base_config(), **settings)
    c.steps = 50_000
    c.batch_size = 256
    c.ema_rates = (0.9999,)
    c.dataset.update({'source': 'tfds', 'name': 'mnist', 'data_dir': ''})
    c.model.update({**NETWORK, 'heads': order, 'skip_scaling': 0.75, 'dtype': 'float32'})
    c.prior.update(NETWORK)
    c.optimizer.update({'name': 'adam', 'learning_rate': 3e-4, 'warmup_steps': 5000})
    c.sampling.update({'ema': '0.9999', 'every': 5000})
    c.evaluation.extractor = 'lenet_fashion_mnist'  # MNIST has none of its own here
    return c


def get_config():
    return cud_config(1)
