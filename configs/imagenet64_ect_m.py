"""ECT on ImageNet at 64x64, from EDM2-M (497,803,173 parameters); arXiv 2406.14548.

    python -m cm_jax.convert import --from=FILE.pkl --network=edm2_imagenet64_m \
        --workdir=runs/imagenet64/edm2_m
    python -m cm_jax.train --config=configs/imagenet64_ect_m.py --workdir=runs/imagenet64/ect_m \
        --config.dataset.path=PATH

FILE is one of EDM2's public snapshots, PATH a folder of images of 64x64 in one folder a class. Global
batch 128, 100,000 steps = 12.8 million images, the teacher's not counted; q = 4, doubled every 25,000
steps: four stages. The paper's FID-50k, 1 and 2 steps: 3.67 and 2.35. Ours: not run.
"""

from configs.imagenet64_ect_s import ect_config


def get_config():
    return ect_config('m', learning_rate=0.0009, dropout=0.5)
