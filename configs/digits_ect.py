"""Easy consistency tuning (ECT) on scikit-learn's digits; arXiv 2406.14548.

    python -m cm_jax.train --config=configs/digits_ect.py --workdir=runs/digits/ect

It starts from the run of digits_edm.py; --config.init_from.workdir names another. The global batch
is 64: 1,000 steps see 64,000 images, those of the teacher not counted. There are six stages
(q = 2): in the last, r/t is 0.92 for small t and 0.98 for large t. The results are in the table of
`bash launch/quickstart.sh` in the README and of `bash launch/study.sh digits` in docs/results.md.
"""

from configs.common.digits import digits_config


def get_config():
    c = digits_config()
    c.steps = 1000
    c.ema_rates = (0.99, 0.997)
    c.objective.update({'name': 'ect', 'p_mean': -1.1, 'p_std': 2.0, 'q': 2.0, 'k': 8.0, 'b': 1.0})
    c.objective.update({'double_every': 170, 'c': 0.0, 'weight': 'inverse_gap'})
    c.optimizer.update({'name': 'radam', 'learning_rate': 1e-3})
    c.init_from.update({'workdir': 'runs/digits/edm', 'ema': '0.995'})
    c.trajectory.every = 20
    c.sampling.update({'sampler': 'onestep', 'ema': '0.99', 'count': 50, 'every': 500})
    c.evaluation.samplers = ('onestep', 'multistep@80,0.8')
    return c
