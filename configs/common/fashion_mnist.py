"""What the configs on Fashion-MNIST share: 60,000 images of 28x28 pixels in 10 classes."""

from cm_jax.config import base_config
from configs.common.flow import rectified_flow

SMALL = {'channels': 16, 'attn_resolutions': ()}


def fashion_mnist_config(small=False):
    """Returns a config with the data and a network of 1,259,745 parameters, or a `small` one."""
    c = base_config()
    c.batch_size = 128
    c.class_conditional = True
    c.dataset.update({'source': 'tfds', 'name': 'fashion_mnist', 'data_dir': ''})
    c.model.update({'channels': 32, 'channel_mult': (1, 2, 2), 'num_blocks': 1})
    c.model.update({'attn_resolutions': (7,), 'dropout': 0.0, 'dtype': 'float32'})
    c.model.precision = 'default'
    if small:
        c.model.update(SMALL)
    c.objective.sigma_data = 0.5
    c.evaluation.extractor = 'lenet_fashion_mnist'
    return c


def flow_config(**objective):
    """Returns the training of that network on rectified flow with an objective."""
    c = rectified_flow(fashion_mnist_config(), **objective)
    c.steps = 20_000
    c.ema_rates = (0.999,)
    c.optimizer.update({'name': 'adam', 'learning_rate': 1e-3, 'warmup_steps': 500})
    c.sampling.update({'ema': '0.999', 'count': 50, 'every': 2000})
    return c
