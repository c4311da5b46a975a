"""The four kinds of network, small, with weights that are not near 0."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax import models
from cm_jax.core import tree

SHAPE = (8, 8, 3)
SIZES = {'channels': 16, 'channel_mult': (1, 2), 'num_blocks': 1, 'attn_resolutions': (4,)}
NCSNPP = {'embedding': 'fourier', 'encoder': 'residual', 'resample_filter': (1, 3, 3, 1)}
HEADS = {'channels_per_head': 16}
SMALL = {
    'ddpmpp': {'name': 'song_unet', **SIZES},
    'ncsnpp': {'name': 'song_unet', **SIZES, **NCSNPP, 'channel_mult_noise': 2},
    'adm': {'name': 'adm_unet', **SIZES, **HEADS},
    'edm2': {'name': 'edm2_unet', **SIZES, **HEADS},
}

NETWORKS = pytest.mark.parametrize('network', SMALL)


def relative_error(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


@functools.cache
def weights(network, num_classes=0, **settings):
    """Weights that are not near 0, as the initial ones are; kernels keep the magnitude."""
    model = models.build(SMALL[network] | settings, SHAPE, num_classes)
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        kernel = path[-1].key == 'kernel'
        size = np.prod(leaf.shape[:-1]) ** -0.5 if kernel else 0.2
        return jnp.float32((path[-1].key == 'scale') + size * rng.standard_normal(leaf.shape))

    shapes = jax.eval_shape(model.init, jax.random.key(0))
    return jax.tree_util.tree_map_with_path(draw, shapes)


@functools.cache
def jitted(network, num_classes=0, **settings):
    return jax.jit(models.build(SMALL[network] | settings, SHAPE, num_classes).net)


def is_fixed(path):
    return path[-1].startswith(tree.FIXED)


def inputs(batch=3):
    x = jax.random.normal(jax.random.key(2), (batch, *SHAPE))
    return x, jnp.linspace(-1.5, 1.0, batch)[:, None]
