"""ECT on ImageNet at 64x64, from EDM2-S (280,209,381 parameters); arXiv 2406.14548.

    python -m cm_jax.convert import --from=FILE.pkl --network=edm2_imagenet64_s \
        --workdir=runs/imagenet64/edm2_s
    python -m cm_jax.train --config=configs/imagenet64_ect_s.py --workdir=runs/imagenet64/ect_s \
        --config.dataset.path=PATH

FILE is one of EDM2's public snapshots, PATH a folder of images of 64x64 in one folder a class. Global
batch 128, 100,000 steps = 12.8 million images, the teacher's not counted; q = 4, doubled every 25,000
steps: four stages. The paper's FID-50k, 1 and 2 steps: 5.51 and 3.18. Ours: not run.
"""

from cm_jax.models.presets import PRESETS
from configs.imagenet64_adm import imagenet64_config


def ect_config(size, learning_rate, dropout):
    """ECT's training on ImageNet-64 of EDM2 in one size."""
    c = imagenet64_config()
    c.steps = 100_000
    c.batch_size = 128
    c.ema_rates = (0.9999,)
    c.ema_sigma_rels = (0.01, 0.05, 0.1)
    c.model.update(PRESETS[f'edm2_imagenet64_{size}'].settings)
    c.model.update({'dropout': dropout, 'dropout_resolution': 16, 'dtype': 'bfloat16'})
    c.objective.update({'name': 'ect', 'p_mean': -0.8, 'p_std': 1.6, 'q': 4.0, 'k': 8.0, 'b': 1.0})
    c.objective.update({'double_every': 25_000, 'c': 0.06, 'weight': 'karras'})
    c.optimizer.update({'name': 'adam', 'learning_rate': learning_rate, 'b2': 0.99})
    c.optimizer.update({'decay': 'inverse_sqrt', 'decay_steps': 2000})
    c.init_from.workdir = f'runs/imagenet64/edm2_{size}'
    c.trajectory.every = 1000
    c.sampling.update({'sampler': 'onestep', 'ema': '0.9999', 'every': 5000})
    c.evaluation.samplers = ('onestep', 'multistep@80,1.526')
    return c


def get_config():
    return ect_config('s', learning_rate=1e-3, dropout=0.4)
