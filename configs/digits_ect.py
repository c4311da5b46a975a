"""ECT on scikit-learn's digits, from the teacher of digits_edm."""

from cm_jax.config import base_config


def get_config():
    c = base_config()
    c.steps = 2000
    c.batch_size = 128
    c.class_conditional = True
    c.ema_rates = (0.9, 0.99, 0.999)
    c.model.update({'channels': 32, 'channel_mult': (1, 2), 'num_blocks': 1})
    c.model.update({'attn_resolutions': (), 'dropout': 0.0, 'dtype': 'float32'})
    c.objective.update({'name': 'ect', 'sigma_data': 0.5, 'p_mean': -1.1, 'p_std': 2.0})
    c.objective.update({'q': 2.0, 'double_every': 400, 'c': 0.0, 'weight': 'inverse_gap'})
    c.optimizer.update({'name': 'radam', 'learning_rate': 1e-3})
    c.init_from.update({'workdir': 'runs/quickstart/teacher', 'ema': '0.995'})
    c.trajectory.every = 50
    c.evaluation.samplers = ('onestep', 'multistep@80,0.8')
    return c
