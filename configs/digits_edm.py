"""EDM diffusion teacher on scikit-learn's digits (1,500 images of 8x8, 10 classes).

    python -m cm_jax.train --config=configs/digits_edm.py --workdir=runs/quickstart/teacher

Global batch 64, 1,000 steps = 64,000 images.
"""

from cm_jax.config import base_config


def digits_config():
    """What the runs on the digits share: the data and a network of 76,321 parameters."""
    c = base_config()
    c.batch_size = 64
    c.class_conditional = True
    c.model.update({'channels': 16, 'channel_mult': (1, 1), 'num_blocks': 1})
    c.model.update({'attn_resolutions': (), 'dropout': 0.0, 'dtype': 'float32'})
    c.objective.sigma_data = 0.5
    c.evaluation.seeds = (1000, 1001)
    return c


def get_config():
    c = digits_config()
    c.steps = 1000
    c.ema_rates = (0.995,)
    c.objective.update({'name': 'edm', 'p_mean': -1.2, 'p_std': 1.2})
    c.optimizer.update({'name': 'adam', 'learning_rate': 3e-3, 'warmup_steps': 100})
    c.sampling.update({'sampler': 'heun@18', 'ema': '0.995', 'count': 50, 'every': 1000})
    c.evaluation.samplers = ('heun@18', 'onestep')
    return c
