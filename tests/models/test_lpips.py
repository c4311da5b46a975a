"""LPIPS: the whole network against NumPy, the resize, gradients, and the files of its weights."""

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from cm_jax.errors import UserError
from cm_jax.models import lpips
from cm_jax.weights import lpips as files
from cm_jax.weights.write import write_safetensors
from tests.helpers import weight_files

# Index in torchvision's `features`, channels in and out, size, stride, padding; '+': a feature map.
VGG = """
0 3 64 3 1 1, 2 64 64 3 1 1 +, pool 2, 5 64 128 3 1 1, 7 128 128 3 1 1 +, pool 2,
10 128 256 3 1 1, 12 256 256 3 1 1, 14 256 256 3 1 1 +, pool 2,
17 256 512 3 1 1, 19 512 512 3 1 1, 21 512 512 3 1 1 +, pool 2,
24 512 512 3 1 1, 26 512 512 3 1 1, 28 512 512 3 1 1 +
"""
ALEX = """
0 3 64 11 4 2 +, pool 3, 3 64 192 5 1 2 +, pool 3, 6 192 384 3 1 1 +, 8 384 256 3 1 1 +,
10 256 256 3 1 1 +
"""
LAYERS = {k: [line.split() for line in v.split(',')] for k, v in (('vgg', VGG), ('alex', ALEX))}
SLICES = {'alex': {0: 1, 3: 2, 6: 3, 8: 4, 10: 5}}  # of the public package: index -> net.slice...
SHAPE = (2, 31, 31, 3)  # the least of AlexNet
SHIFT, SCALE = np.array([-0.030, -0.088, -0.188]), np.array([0.458, 0.448, 0.450])


def made_up(network):
    """(features, heads): state dicts under torchvision's and the package's names."""
    rng = np.random.default_rng(0)
    features, heads = {}, {}
    for first, *rest in LAYERS[network]:
        if first == 'pool':
            continue
        inputs, outputs, size = map(int, rest[:3])
        gain = np.float32(np.sqrt(2 / (inputs * size**2)))
        weight = gain * rng.standard_normal((outputs, inputs, size, size), np.float32)
        features[f'features.{first}.weight'] = weight
        features[f'features.{first}.bias'] = rng.normal(0, 0.1, outputs).astype(np.float32)
        if rest[-1] == '+':
            shape = (1, outputs, 1, 1)
            heads[f'lin{len(heads)}.model.1.weight'] = rng.random(shape, np.float32)
    return features, heads


def params_of(network, state):
    features, heads = state
    return files.to_params(features, network, 'features') | files.to_params(heads, network, 'heads')


def images(shape, count=2, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.uniform(-1, 1, shape).astype(np.float32) for _ in range(count)]


class Made(NamedTuple):
    """A made-up AlexNet."""

    measure: Callable  # (params, a, b) -> ([B], gradients of the sum in a and b), no resizing
    params: Any
    state: tuple  # (features, heads)


@pytest.fixture(scope='module')
def alex():
    module, state = lpips.Lpips('alex'), made_up('alex')

    def total(a, b, params):
        found = module.apply({'params': params}, a, b)
        return jnp.sum(found), found

    slope = jax.value_and_grad(total, argnums=(0, 1), has_aux=True)

    @jax.jit
    def measure(params, a, b):
        (_, distances), gradients = slope(a, b, params)
        return distances, gradients

    return Made(measure, params_of('alex', state), state)


# The network, in NumPy and float64


def windows(x, size, stride):
    return sliding_window_view(x, (size, size), axis=(2, 3))[:, :, ::stride, ::stride]


def numpy_maps(x, network, features, pooling):
    """The feature maps [B,C,H,W] of images [B,H,W,3]."""
    x = ((x.astype(np.float64) - SHIFT) / SCALE).transpose(0, 3, 1, 2)
    maps = []
    for first, *rest in LAYERS[network]:
        if first == 'pool':
            view = windows(x, int(rest[0]), 2)
            x = view.max((4, 5)) if pooling == 'max' else view.mean((4, 5))
            continue
        size, stride, padding = map(int, rest[2:5])
        x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
        weight, bias = features[f'features.{first}.weight'], features[f'features.{first}.bias']
        x = np.tensordot(windows(x, size, stride), weight, ((1, 4, 5), (1, 2, 3))) + bias
        x = np.maximum(x, 0).transpose(0, 3, 1, 2)
        if rest[-1] == '+':
            maps.append(x)
    return maps


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


# Files


def whole(state):
    """The state dict of the package's whole module, which has each head twice."""
    features, heads = state
    found = {}
    for name, value in features.items():
        _, index, leaf = name.split('.')
        found[f'net.slice{SLICES["alex"][int(index)]}.{index}.{leaf}'] = value
    for name, value in heads.items():
        found |= {name: value, name.replace('lin', 'lins.'): value}
    constants = {'shift': SHIFT, 'scale': SCALE}
    return found | {
        f'scaling_layer.{k}': v.astype(np.float32).reshape(1, 3, 1, 1) for k, v in constants.items()
    }


def write(path, state):
    if path.suffix == '.npz':
        np.savez(path, **state)
    elif path.suffix == '.safetensors':
        write_safetensors(path, state, {})
    else:
        root = {name: weight_files.tensor(value) for name, value in state.items()}
        path.write_bytes(weight_files.WRITERS[path.suffix](root))
    return str(path)


@pytest.fixture(scope='module')
def stored(alex, tmp_path_factory):
    """A config's section with the files of the made-up AlexNet, with a classifier beside it."""
    folder, (features, heads) = tmp_path_factory.mktemp('lpips'), alex.state
    classifier = {'classifier.1.weight': np.zeros((4, 3), np.float32)}
    return {
        'network': 'alex',
        'features': write(folder / 'alexnet.pth', features | classifier),
        'heads': write(folder / 'alex.pt', heads),
    }


def equal(found, wanted):
    jax.tree.map(np.testing.assert_array_equal, found, wanted)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(found))


def test_files_of_the_public_weights(stored, alex):
    found = files.distance_of(stored)
    equal(found.params, alex.params)
    for part in ('features', 'heads'):
        with open(stored[part], 'rb') as file:
            assert found.checksums[part] == hashlib.sha256(file.read()).hexdigest()
    assert found.name == 'lpips_alex'
    average = files.distance_of({**stored, 'pooling': 'average'})
    assert average.name == 'lpips_alex_average_pooling'
    a, b = images((1, 16, 16, 3))
    np.testing.assert_allclose(found(a, b), jax.jit(found.apply)(alex.params, a, b), rtol=1e-5)
    assert abs(found(a, b) / average(a, b) - 1) > 1e-3


@pytest.mark.parametrize('suffix', ['.npz', '.safetensors', '.pt'])
def test_one_file_of_the_whole_module(alex, tmp_path, suffix):
    path = write(tmp_path / f'lpips{suffix}', whole(alex.state))
    equal(files.load('alex', path, path).params, alex.params)


def change(state, **changes):
    """`state` with values replaced, or dropped where the new one is None."""
    changed = state | changes
    return {name: value for name, value in changed.items() if value is not None}


HEAD, FIRST = 'lin2.model.1.weight', 'features.0.weight'


@pytest.mark.parametrize(
    'part, changes, message',
    [
        ('heads', {HEAD: None}, r"fit the heads of LPIPS 'alex': 1 missing: lin2.model.1.weight$"),
        (
            'heads',
            {HEAD: np.zeros((1, 256, 1, 1))},
            'lin2.model.1.weight is 1x256x1x1, not 1x384x1x1',
        ),
        ('heads', {HEAD: np.full((1, 384, 1, 1), -0.25)}, 'has the value -0.25; heads are >= 0'),
        ('heads', {'lin5.model.1.weight': np.zeros(3)}, '1 unexpected: lin5.model.1.weight'),
        (
            'heads',
            {'lins.2.model.1.weight': np.zeros(3)},
            f'{HEAD} is there twice, the second time',
        ),
        (
            'heads',
            {'scaling_layer.shift': np.zeros(3)},
            'scaling_layer.shift is not that of version',
        ),
        ('features', {FIRST: None, 'features.3.bias': None}, '2 missing: features.0.weight, feat'),
        ('features', {FIRST: np.full((64, 3, 11, 11), np.inf)}, 'has values that are not finite'),
        ('features', {'features.1.weight': np.zeros(64)}, '1 unexpected: features.1.weight'),
    ],
)
def test_wrong_tensors_are_named(stored, alex, tmp_path, part, changes, message):
    state = change(alex.state[('features', 'heads').index(part)], **changes)
    path = write(tmp_path / 'wrong.npz', state)
    with pytest.raises(UserError, match=message) as raised:
        files.distance_of({**stored, part: path})
    assert str(raised.value).startswith(f'{path}: ') and '\n' not in str(raised.value)


def test_wrong_settings_are_refused(stored, tmp_path):
    def refused(message, **settings):
        with pytest.raises(UserError, match=message) as raised:
            files.distance_of({**stored, **settings})
        assert '\n' not in str(raised.value)

    refused(
        r"unknown LPIPS network 'vgg16' \(did you mean 'vgg'\?\); legal: alex, vgg", network='vgg16'
    )
    refused("unknown LPIPS pooling 'min'; legal: average, max", pooling='min')
    refused("unknown LPIPS precision 'low'; legal: default, high, highest", precision='low')
    refused(r"unknown key config\.lpips\.head 'head' \(did you mean 'heads'", head='x')
    refused('no weights file .*none.pth', features=str(tmp_path / 'none.pth'))
    refused("path of the file of its heads, got ''", heads='')
    refused('path of the file of its features, got None', features=None)
    refused(r"fit the features of LPIPS 'vgg': 22 missing", network='vgg')
    refused(r"fit the heads of LPIPS 'alex': 5 missing", heads=stored['features'])
    with pytest.raises(UserError, match=r'config\.lpips lacks heads'):
        files.distance_of({'network': 'alex', 'features': stored['features']})
