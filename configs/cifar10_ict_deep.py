"""iCT-deep on CIFAR-10: cifar10_ict.py with twice the blocks, 97,610,499 parameters; arXiv 2310.14189.

    python -m cm_jax.train --config=configs/cifar10_ict_deep.py --workdir=runs/cifar10/ict_deep

The global batch is 1024: 400,000 steps see 410 million images, not flipped. As there, the settings
are second-hand and products are float32's own. The paper's FID-50k, 1 and 2 steps (middle level
0.821): 2.51 and 2.24. Ours: not run.
"""

from cm_jax.models.presets import PRESETS
from configs import cifar10_ict


def get_config():
    c = cifar10_ict.get_config()
    c.model.update(PRESETS['ncsnpp_deep_cifar10'].settings)
    return c
