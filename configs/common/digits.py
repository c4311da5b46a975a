"""What the configs on scikit-learn's digits share: 1,500 images of 8x8 pixels in 10 classes."""

from ml_collections.config_dict import placeholder

from cm_jax.config import base_config
from configs.common.flow import rectified_flow


def digits_config():
    """Returns a config with the data and a network of 76,321 parameters."""
    c = base_config()
    c.batch_size = 64
    c.class_conditional = True
    c.model.update({'channels': 16, 'channel_mult': (1, 1), 'num_blocks': 1})
    c.model.update({'attn_resolutions': (), 'dropout': 0.0, 'dtype': 'float32'})
    c.model.precision = 'default'
    c.objective.sigma_data = 0.5
    c.evaluation.update({'extractor': 'lenet_digits', 'seeds': (1000, 1001)})
    c.evaluation.second = ('lenet_fashion_mnist', 'pixel')
    return c


def flow_config(**objective):
    """Returns the training of that network on rectified flow with an objective."""
    c = rectified_flow(digits_config(), **objective)
    c.steps = 1000
    c.ema_rates = (0.995,)
    c.model.skip_scaling = placeholder(float)
    c.optimizer.update({'name': 'adam', 'learning_rate': 3e-3, 'warmup_steps': 100})
    c.sampling.update({'ema': '0.995', 'count': 50, 'every': 1000})
    return c
