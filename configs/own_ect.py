"""Easy consistency tuning (ECT) on your own pictures; arXiv 2406.14548.

    python -m cm_jax.train --config=configs/own_ect.py --workdir=runs/own/ect \\
        --config.dataset.name=flowers

It starts from the run of own_edm.py, on the same data; --config.init_from.workdir names another. The
global batch is 64: 5,000 steps see 320,000 images, those of the teacher not counted. It computes
in float32's own precision. It is not run by us.
"""

from configs.common.own import own_config


def get_config():
    c = own_config()
    c.steps = 5000
    c.ema_rates = (0.99, 0.997)
    c.objective.update({'name': 'ect', 'p_mean': -1.1, 'p_std': 2.0, 'q': 2.0, 'k': 8.0, 'b': 1.0})
    c.objective.update({'double_every': 800, 'c': 0.0, 'weight': 'inverse_gap'})
    c.optimizer.update({'name': 'radam', 'learning_rate': 1e-4})
    c.init_from.update({'workdir': 'runs/own/edm', 'ema': '0.999'})
    c.trajectory.every = 100
    c.sampling.update({'sampler': 'onestep', 'ema': '0.99', 'count': 64, 'every': 1000})
    c.evaluation.samplers = ('onestep', 'multistep@80,0.8')
    return c
