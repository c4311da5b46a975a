"""What the configs on LSUN at 256x256 pixels share: a folder of images of one category."""

from cm_jax.config import base_config
from cm_jax.models.presets import PRESETS


def lsun256_config():
    """Returns a config with the data and the network of OpenAI's consistency models, ADM.

    Pictures and scores are those of a few-step model.
    """
    c = base_config()
    c.batch_size = 256
    c.ema_rates = (0.9999432,)
    c.dataset.update({'source': 'folder', 'path': ''})
    c.model.update(PRESETS['cm_lsun256'].settings)
    c.model.update({'dtype': 'bfloat16', 'dropout': 0.0})
    c.objective.sigma_data = 0.5
    c.train.resume_every = 2000
    c.trajectory.every = 20_000
    c.sampling.update({'sampler': 'onestep', 'ema': '0.9999432', 'count': 16, 'every': 10_000})
    return c
