"""EDM teacher on scikit-learn's digits (8x8, 10 classes)."""

from cm_jax.config import base_config


def get_config():
    c = base_config()
    c.steps = 2500
    c.batch_size = 128
    c.class_conditional = True
    c.ema_rates = (0.995,)
    c.model.update({'channels': 32, 'channel_mult': (1, 2), 'num_blocks': 1})
    c.model.update({'attn_resolutions': (), 'dropout': 0.0, 'dtype': 'float32'})
    c.objective.update({'sigma_data': 0.5, 'p_mean': -1.2, 'p_std': 1.2})
    c.optimizer.update({'learning_rate': 2e-3, 'warmup_steps': 100})
    c.sampling.sampler = 'heun@18'
    c.sampling.ema = '0.995'
    c.evaluation.samplers = ('heun@18', 'onestep')
    return c
