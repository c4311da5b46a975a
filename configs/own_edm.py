"""EDM diffusion teacher on your own pictures; arXiv 2206.00364.

    python -m cm_jax.prepare --dataset=flowers --from=FOLDER --size=32
    python -m cm_jax.train --config=configs/own_edm.py --workdir=runs/own/edm \\
        --config.dataset.name=flowers
    python -m cm_jax.sample --workdir=runs/own/edm

FOLDER is a folder of pictures, or a zip of one. A folder of pictures of one size needs no `prepare`:
--config.dataset.source=folder --config.dataset.path=FOLDER. Pictures that stand in a folder for each
class have labels, which the network is told with --config.class_conditional=True. The global batch
is 64: 5,000 steps see 320,000 images. It computes in float32's own precision. It is not run by us:
how many steps are needed depends on the pictures.
"""

from configs.common.own import own_config


def get_config():
    c = own_config()
    c.steps = 5000
    c.ema_rates = (0.999,)
    c.objective.update({'name': 'edm', 'p_mean': -1.2, 'p_std': 1.2})
    c.optimizer.update({'name': 'adam', 'learning_rate': 1e-3, 'warmup_steps': 500})
    c.sampling.update({'sampler': 'heun@18', 'ema': '0.999', 'count': 64, 'every': 1000})
    c.evaluation.samplers = ('heun@18',)
    return c
