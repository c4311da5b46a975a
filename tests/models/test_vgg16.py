"""The features of VGG-16 against NumPy, the resize, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax.errors import UserError
from cm_jax.models import lpips, vgg16
from cm_jax.weights import lpips as files
from tests.helpers.lpips_numpy import numpy_maps
from tests.helpers.lpips_weights import images, made_up
from tests.helpers.resizing import resized


@pytest.fixture(scope='module')
def made():
    """(our parameters, torchvision's state dict) of made-up weights."""
    state, _ = made_up('vgg')
    return files.to_params(state, 'vgg', 'features')['features'], state


def wanted(x, state):
    """The features of images [B,H,W,3] of the size that the network sees."""
    return numpy_maps(x, 'vgg', state, 'max')[-1].mean((2, 3))


@pytest.mark.parametrize('size', [(8, 8), (31, 40), (32, 32), (35, 48)])
@pytest.mark.parametrize('channels', [1, 3])
def test_features_are_those_of_numpy(made, size, channels):
    params, state = made
    (x,) = images((2, *size, channels), 1)
    found = jax.jit(vgg16.features)(params, x)
    assert found.shape == (2, vgg16.DIM) and found.dtype == jnp.float32 and found.min() >= 0
    seen = x if min(size) >= 32 else resized(x, 32)
    expected = wanted(np.broadcast_to(seen, (*seen.shape[:3], 3)), state)
    np.testing.assert_allclose(found, expected, atol=1e-4 * expected.max())
    assert np.abs(expected[0] - expected[1]).max() > 0.01 * expected.max()


def test_the_parameters_are_those_of_lpips(made):
    shapes = jax.tree.map(lambda leaf: leaf.shape, lpips.shapes('vgg')['features'])
    assert jax.tree.map(np.shape, made[0]) == shapes


def test_other_channels_are_refused_when_the_program_is_built():
    x = jax.ShapeDtypeStruct((1, 32, 32, 4), jnp.float32)
    with pytest.raises(UserError, match='the extractor VGG-16 cannot take images with 4 channels'):
        jax.eval_shape(vgg16.features, lpips.shapes('vgg')['features'], x)
