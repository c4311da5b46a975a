"""Measures what a dtype alone keeps of the signal of ECT in the papers' networks, with made-up weights.

    python benchmarks/precision.py ddpmpp_cifar10 --count=2

The table is that of `python -m cm_jax.check_precision`, at precision highest: the last gap of the
network's config, with kernels drawn from N(0, 1/fan-in), where initial ones would make the network 0,
and images of noise. It shows what is to be expected of such a network; a trained run has its own table.
"""

import argparse
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import cm_jax  # noqa: F401  isort: skip  # before JAX: it sets a CPU flag
import dataclasses

import jax
import numpy as np

from cm_jax.data import Source
from cm_jax.models.presets import PRESETS
from cm_jax.models.unet import DTYPES
from cm_jax.settings import parse_run
from cm_jax.training import precision
from cm_jax.types import Params
from cm_jax.wiring import wire
from configs import cifar10_ect, imagenet64_ect

CONFIGS = {'ddpmpp_cifar10': cifar10_ect, 'edm2_imagenet64_s': imagenet64_ect}


def made_up(shapes: Params) -> Params:
    """Returns weights that are not near 0: kernels from N(0, 1/fan-in), gains of 1, biases of 0."""
    rng = np.random.default_rng(0)

    def draw(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        name = path[-1].key
        if name == 'scale' or name.endswith('gain'):
            return np.ones(leaf.shape, np.float32)
        if name == 'bias':
            return np.zeros(leaf.shape, np.float32)
        size = np.float32(np.prod(leaf.shape[:-1]) ** -0.5 if name == 'kernel' else 2 * np.pi)
        return size * rng.standard_normal(leaf.shape, np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def noise_source(image_shape: tuple[int, int, int], classes: int) -> Source:
    """Returns a source of images whose pixels are independent."""

    def get(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        images = np.random.default_rng(1).integers(0, 256, (len(indices), *image_shape))
        return images.astype(np.uint8), indices.astype(np.int32) % max(1, classes)

    return Source(
        name='noise', split='', count=1 << 20, image_shape=image_shape, num_classes=classes, get=get
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('network', choices=CONFIGS)
    parser.add_argument('--count', type=int, default=2, help='images at each noise level')
    arguments = parser.parse_args()
    preset = PRESETS[arguments.network]
    settings = parse_run(CONFIGS[arguments.network].get_config().to_dict())
    source = noise_source(preset.image_shape, preset.num_classes)
    model = wire(settings, preset.image_shape, preset.num_classes).model
    params = model.project(made_up(jax.eval_shape(model.init, jax.random.key(0))))
    probe = precision.make_probe(settings, source, arguments.count)
    if jax.default_backend() == 'cpu':
        probe = dataclasses.replace(probe, compiler_options=precision.QUICK)
    device = jax.devices()[0]
    print(f'{device.platform}: {device.device_kind}, JAX {jax.__version__}\n')
    choices = [(dtype, 'highest') for dtype in DTYPES]
    print('\n'.join(precision.table(probe, params, (), choices)))


if __name__ == '__main__':
    main()
