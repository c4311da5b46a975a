"""What the configs for your own pictures share: a data set that `prepare` has written, by its name."""

from cm_jax.config import base_config


def own_config():
    """Returns a config without data, and with a network of about 1.2 million parameters.

    The side of the pictures is a multiple of 4. Scores compare pooled pixels, which need no file; they
    are no FID.
    """
    c = base_config()
    c.batch_size = 64
    c.dataset.source = 'tfds'
    c.model.update({'channels': 32, 'channel_mult': (1, 2, 2), 'num_blocks': 1})
    c.model.update({'attn_resolutions': (), 'dropout': 0.0, 'dtype': 'float32'})
    c.model.precision = 'highest'
    c.objective.sigma_data = 0.5
    c.evaluation.extractor = 'pixel'
    return c
