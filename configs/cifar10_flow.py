"""Rectified flow on CIFAR-10, unconditional; arXiv 2209.03003.

    python -m cm_jax.prepare --dataset=cifar10 --from=PATH
    python -m cm_jax.train --config=configs/cifar10_flow.py --workdir=runs/cifar10/flow

The network and the training are those of cifar10_cud.py, to be compared with it, not those of the
paper on rectified flow; images are flipped at random, the noise is independent of the images, and
products are float32's own. The global batch is 128: 500,000 steps see 64 million images. Ours: not
run.
"""

from configs.common.cifar10 import flow_config


def get_config():
    return flow_config(name='flow')
