"""What the configs on LSUN at 256x256 pixels share: a folder of images of one category."""

from cm_jax.config import base_config
from cm_jax.models.presets import PRESETS

REFERENCES = {  # category: the statistics of ADM, as in the code of consistency models
    'bedroom': 'VIRTUAL_lsun_bedroom256.npz',
    'cat': 'VIRTUAL_lsun_cat256.npz',
}


def lsun256_config(category):
    """Returns a config with the data and the network of OpenAI's consistency models, ADM.

    Pictures and scores are those of a few-step model. bfloat16 is in place of the paper's float16 with
    loss scaling.
    """
    c = base_config()
    c.batch_size = 256
    c.ema_rates = (0.9999432,)
    c.dataset.update({'source': 'folder', 'path': '', 'flip': True})
    c.model.update(PRESETS['cm_lsun256'].settings)
    c.model.update({'dtype': 'bfloat16', 'precision': 'default', 'dropout': 0.0})
    c.objective.sigma_data = 0.5
    c.train.resume_every = 2000
    c.trajectory.every = 20_000
    c.sampling.update({'sampler': 'onestep', 'ema': '0.9999432', 'count': 16, 'every': 10_000})
    c.evaluation.update({'extractor': 'inception', 'samples': 50_000, 'bytes': 'truncate'})
    c.evaluation.reference = REFERENCES[category]
    return c
