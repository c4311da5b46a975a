"""Improved consistency training (iCT) on scikit-learn's digits, from data alone; arXiv 2310.14189.

    python -m cm_jax.train --config=configs/digits_ict.py --workdir=runs/digits/ict

The global batch is 64: 1,000 steps see 64,000 images, in eight stages from 10 to 1280 gaps. Unlike
the paper's, the network keeps its positional embedding and has no dropout. The result is in the
table of `bash launch/study.sh digits` in docs/results.md.
"""

from configs.common.digits import digits_config


def get_config():
    c = digits_config()
    c.steps = 1000
    c.ema_rates = (0.99,)
    c.objective.update({'name': 'ict', 'total_steps': c.get_ref('steps'), 's0': 10, 's1': 1280})
    c.objective.update({'p_mean': -1.1, 'p_std': 2.0, 'weight': 'inverse_gap'})
    c.optimizer.update({'name': 'radam', 'learning_rate': 1e-3})
    c.trajectory.every = 100
    c.sampling.update({'sampler': 'onestep', 'ema': '0.99', 'count': 50, 'every': 500})
    c.evaluation.samplers = ('onestep', 'multistep@80,0.8')
    return c
