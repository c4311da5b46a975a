"""iCT-deep on CIFAR-10: iCT with twice the blocks, 97,610,499 parameters; arXiv 2310.14189.

    python -m cm_jax.train --config=configs/cifar10_ict_deep.py --workdir=runs/cifar10/ict_deep

Global batch 1024, 400,000 steps = 410 million images. The paper's FID-50k, 1 and 2 steps (middle level
0.821): 2.51 and 2.24. Ours: not run.
"""

from configs.cifar10_ict import ict_config


def get_config():
    return ict_config('ncsnpp_deep_cifar10')
