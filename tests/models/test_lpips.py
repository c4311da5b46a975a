"""LPIPS: the whole network against NumPy, the resize, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax.errors import UserError
from cm_jax.models import lpips
from tests.helpers.lpips_numpy import numpy_maps
from tests.helpers.lpips_weights import images, made_up, measured_alex, params_of

SHAPE = (2, 31, 31, 3)  # the least of AlexNet


@pytest.fixture(scope='module')
def alex():
    return measured_alex()


def numpy_lpips(a, b, network, state, pooling='max'):
    features, heads = state
    total = np.zeros(len(a))
    maps = [numpy_maps(x, network, features, pooling) for x in (a, b)]
    for i, pair in enumerate(zip(*maps)):
        f, g = (m / (np.sqrt((m**2).sum(1, keepdims=True)) + 1e-10) for m in pair)
        weighted = (f - g) ** 2 * heads[f'lin{i}.model.1.weight']
        total += weighted.sum(1).mean((1, 2))
    return total


@pytest.mark.parametrize(
    'network, pooling, size',
    [('vgg', 'max', (35, 38)), ('alex', 'max', (67, 59)), ('alex', 'average', (36, 41))],
)
def test_distance_is_that_of_numpy(network, pooling, size):
    state = made_up(network)
    a, b = images((2, *size, 3))
    b[1] = a[1] + 0.1 * b[1]
    module = lpips.Lpips(network, pooling)
    found = jax.jit(module.apply)({'params': params_of(network, state)}, a, b)
    assert found.dtype == jnp.float32
    wanted = numpy_lpips(a, b, network, state, pooling)
    assert wanted[0] > 1.1 * wanted[1] > 0
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_gradient_is_the_slope_of_numpy(alex):
    a, b, v = images(SHAPE, 3)
    ahead, behind = (
        numpy_lpips(a + h * v.astype(np.float64), b, 'alex', alex.state) for h in (1e-4, -1e-4)
    )
    _, (gradient, _) = alex.measure(alex.params, a, b)
    found = jnp.sum(v * gradient, axis=(1, 2, 3))
    np.testing.assert_allclose(found, (ahead - behind) / 2e-4, rtol=1e-2)


def test_number_of_parameters():
    """VGG-16 and AlexNet without their classifiers, and the heads."""
    for network, count in (('vgg', 14_714_688 + 1472), ('alex', 2_469_696 + 1152)):
        assert sum(leaf.size for leaf in jax.tree.leaves(lpips.shapes(network))) == count


# What a distance is


def test_identical_images_are_at_zero_and_have_no_gradient(alex):
    (a,) = images(SHAPE, 1)
    a[1] = 0.5  # flat
    for found in jax.tree.leaves(alex.measure(alex.params, a, a)):
        np.testing.assert_array_equal(found, 0)


def test_symmetric_and_each_example_on_its_own(alex):
    a, b = images(SHAPE)
    found, gradients = alex.measure(alex.params, a, b)
    swapped, swapped_gradients = alex.measure(alex.params, b[::-1], a[::-1])
    np.testing.assert_allclose(swapped[::-1], found, rtol=1e-5)
    for x, y in zip(gradients, swapped_gradients[::-1]):
        np.testing.assert_allclose(y[::-1], x, atol=1e-6)
    assert len(set(np.asarray(found).tolist())) == len(found) and found.min() > 0


def test_dead_features_give_zero_and_no_gradient(alex):
    dead = jax.tree.map_with_path(lambda p, x: x - 1e3 * (p[-1].key == 'bias'), alex.params)
    for found in jax.tree.leaves(alex.measure(dead, *images(SHAPE))):
        np.testing.assert_array_equal(found, 0)


def test_unit_vectors():
    f = jnp.array([[3.0, 4.0], [0, 0], [1e-25, 0], [jnp.nan, 1]])
    found = lpips.unit(f)
    np.testing.assert_allclose(found[:3], [[0.6, 0.8], [0, 0], [0, 0]], atol=1e-6)
    assert np.isnan(found[3]).all()
    assert np.isfinite(jax.grad(lambda f: jnp.sum((lpips.unit(f) - 0.7) ** 2))(f[:3])).all()


def test_nan_is_not_lost(alex):
    a, b = images(SHAPE)
    a[0, 7, 7, 1] = np.nan
    found, _ = alex.measure(alex.params, a, b)
    assert np.isnan(found[0]) and np.isfinite(found[1:]).all()


# From the user's images to the network's


def numpy_bilinear(x, side):
    """Half-pixel centres, clamped at the edges, two taps an axis: align_corners=False."""
    for axis in (1, 2):
        n = x.shape[axis]
        at = np.clip((np.arange(side) + 0.5) * n / side - 0.5, 0, None)
        low = np.minimum(at.astype(int), n - 1)
        high = np.minimum(low + 1, n - 1)
        share = (at - low).reshape(-1, *[1] * (x.ndim - 1 - axis))
        x = (1 - share) * x.take(low, axis) + share * x.take(high, axis)
    return x


@pytest.mark.parametrize('size', [(8, 8), (32, 48), (224, 224), (255, 240), (300, 200)])
def test_small_images_are_resized(size):
    (x,) = images((1, *size, 3), 1)
    wanted = numpy_bilinear(x.astype(np.float64), 224)
    np.testing.assert_allclose(lpips.to_input(jnp.asarray(x)), wanted, atol=1e-4)


def test_large_images_are_left():
    (x,) = images((1, 256, 300, 3), 1)
    np.testing.assert_array_equal(lpips.to_input(jnp.asarray(x)), x)


def test_distance_is_of_the_resized_images_and_grey_is_three_channels(alex):
    a, b = (x[..., :1] for x in images((1, 16, 16, 3)))
    pair = [np.tile(numpy_bilinear(x.astype(np.float64), 224), (1, 1, 1, 3)) for x in (a, b)]
    found = jax.jit(lpips.build('alex'))(alex.params, a, b)
    assert found.shape == (1,)
    np.testing.assert_allclose(found, numpy_lpips(*pair, 'alex', alex.state), rtol=1e-3)


def test_other_channels_are_refused():
    with pytest.raises(UserError, match='images with 4 channels; legal: 1, 3'):
        lpips.to_input(jnp.zeros((1, 8, 8, 4)))


@pytest.mark.parametrize('precision', ['default', 'highest'])
def test_program_has_the_precision_asked_for_and_no_weights_in_it(precision):
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.bfloat16)
    program = jax.jit(lpips.build('vgg', precision=precision)).lower(lpips.shapes('vgg'), x, x)
    assert program.out_info.dtype == jnp.float32
    lines = [line for line in program.as_text().splitlines() if 'stablehlo.convolution' in line]
    assert len(lines) >= 13
    assert all(('HIGHEST' in line) == (precision == 'highest') for line in lines)
    assert len(program.as_text()) < 100_000


@pytest.mark.parametrize('size', [(1, 1), (2, 3), (4, 2)])
def test_convolution_of_patches_is_the_convolution(size):
    rng = np.random.default_rng(0)
    x, kernel = (np.float32(rng.normal(size=shape)) for shape in ((2, *size, 4), (5, 5, 4, 6)))
    settings = {'dimension_numbers': ('NHWC', 'HWIO', 'NHWC'), 'precision': 'highest'}
    arguments = (x, kernel, (1, 1), ((2, 2), (2, 2)))
    wanted = jax.lax.conv_general_dilated(*arguments, **settings)
    found = lpips.conv_of_patches(*arguments, **settings)
    np.testing.assert_allclose(found, wanted, atol=1e-4)
