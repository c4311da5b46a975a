"""What the configs on MNIST share: 60,000 images of 28x28 pixels, without their classes."""

from cm_jax.config import base_config

NETWORK = {'name': 'song_unet', 'channels': 32, 'channel_mult': (2, 2, 2), 'num_blocks': 2}
NETWORK |= {'attn_resolutions': (), 'dropout': 0.13}


def mnist_config():
    """Returns a config with the data and the network of the code of CUD.

    Products are float32's own on every device; that code names no precision.
    """
    c = base_config()
    c.batch_size = 256
    c.dataset.update({'source': 'tfds', 'name': 'mnist', 'data_dir': ''})
    c.model.update({**NETWORK, 'skip_scaling': 0.75, 'dtype': 'float32'})
    c.model.precision = 'highest'
    # Fashion-MNIST's network gives the features of the scores: there is none for MNIST here.
    c.evaluation.extractor = 'lenet_fashion_mnist'
    return c
