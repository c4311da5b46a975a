"""The FID Inception: its recorded outputs, the resize, input rules."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax.errors import UserError
from cm_jax.models import inception
from cm_jax.weights import fixtures
from cm_jax.weights import inception as files
from tests.helpers.paths import FIXTURES

RESIZED = 'resized_299_every_23rd'


def test_outputs_are_those_recorded():
    found = {d.name: d for d in fixtures.check(FIXTURES / 'inception_fid.npz')}
    keys = (*fixtures.OUTPUTS, RESIZED)
    assert found.keys() == {f'{size}/{key}' for size in (32, 64) for key in keys}
    for one in found.values():
        assert one.tolerance == (1e-5 if one.name.endswith(RESIZED) else 1e-4)
        assert one.error < one.tolerance, one


def numpy_pooled(x, kind):
    """[B,H,W,C]: 3x3 of stride 1 that keep the size, or a maximum of stride 2 that does not."""
    side = 1 if kind == 'halve' else 0
    fill = 0.0 if kind == 'average' else -np.inf
    pad = ((0, 0), (1 - side, 1 - side), (1 - side, 1 - side), (0, 0))

    def windows(x, fill):
        padded = np.pad(x, pad, constant_values=fill)
        return np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))

    if kind == 'average':
        return windows(x, 0.0).sum((-2, -1)) / windows(np.ones_like(x), 0.0).sum((-2, -1))
    found = windows(x, fill).max((-2, -1))
    return found[:, ::2, ::2] if kind == 'halve' else found


def numpy_conv(x, state, name, stride=1, padding=(0, 0)):
    """The convolution, batch normalisation and relu of a layer, unfolded, in float64."""
    kernel = np.float64(state[f'{name}.conv.weight'])
    x = np.pad(x, ((0, 0), (padding[0],) * 2, (padding[1],) * 2, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[2:], axis=(1, 2))
    x = np.tensordot(windows[:, ::stride, ::stride], kernel, ((3, 4, 5), (1, 2, 3)))
    scale, shift, mean, var = (np.float64(state[f'{name}.bn.{p}']) for p in files.NORM)
    return np.maximum((x - mean) / np.sqrt(var + 1e-3) * scale + shift, 0)


def numpy_stem(state, x):
    """Resized bytes [B,299,299,3] -> the features of 64 and 192 numbers."""
    x = numpy_conv((x - 128) / 128, state, 'Conv2d_1a_3x3', 2)
    x = numpy_conv(x, state, 'Conv2d_2a_3x3')
    x = numpy_pooled(numpy_conv(x, state, 'Conv2d_2b_3x3', padding=(1, 1)), 'halve')
    first = x.mean((1, 2))
    x = numpy_conv(numpy_conv(x, state, 'Conv2d_3b_1x1'), state, 'Conv2d_4a_3x3')
    return first, numpy_pooled(x, 'halve').mean((1, 2))


@pytest.mark.slow
def test_another_fixture_of_the_form_is_followed(recorded, tmp_path):
    """Other weights, numbers of the rule, image sizes and pixels of the resize: the stem in NumPy."""
    config = recorded('inception_fid').config
    rule = config['weights'].replace('[61,', '[907,').replace('0.2|n|', '0.5|n|')
    rule = rule.replace('1+0.1n', '0.9+0.3n').replace('sqrt(2/', 'sqrt(1.5/')
    found = fixtures.read_rule(rule.replace('0.1n', '0.2n'))
    assert found == ((907,), (1.0, 0.5), (0.9, 0.3), (1.5,), (0.2,))
    state = fixtures.made_up(config['shapes'], found)
    config['weights'] = rule.replace('0.1n', '0.2n')
    arrays = {'config_json': np.array(json.dumps(config))}
    rng = np.random.default_rng(0)
    for name, (height, width) in {'17': (17, 17), '40x9': (40, 9)}.items():
        images = rng.integers(0, 256, (1, 3, height, width), np.uint8)
        resized = numpy_resize(images.transpose(0, 2, 3, 1).astype(np.float64))
        x = jnp.asarray(images.transpose(0, 2, 3, 1) / np.float32(127.5) - 1)
        outputs = dict(jax.jit(inception.outputs)(files.to_params(state), x))
        outputs['64'], outputs['192'] = numpy_stem(state, resized)
        outputs['resized_299_every_31st'] = resized[:, ::31, ::31].transpose(0, 3, 1, 2)
        outputs['images_uint8_nchw'] = images
        arrays |= {f'{name}/{key}': np.asarray(value) for key, value in outputs.items()}
    np.savez(tmp_path / 'other.npz', **arrays)
    differences = fixtures.check(tmp_path / 'other.npz')
    assert len(differences) == 2 * 7 and all(d.error < d.tolerance for d in differences), (
        differences
    )
    config['weights'] = config['weights'].replace('[907,', '[908,')
    np.savez(tmp_path / 'other.npz', **arrays | {'config_json': np.array(json.dumps(config))})
    assert max(d.error for d in fixtures.check(tmp_path / 'other.npz')) > 0.01
    without = {k: v for k, v in arrays.items() if 'resized' not in k}
    for changed, message in (
        (without, r'it has no 17/resized_299_every_<n>th'),
        (
            arrays | {'17/pool': np.zeros(1)},
            r'has 17/pool, which nothing here gives; legal: .*2048',
        ),
    ):
        np.savez(tmp_path / 'other.npz', **changed)
        with pytest.raises(UserError, match=message):
            fixtures.check(tmp_path / 'other.npz')


def test_a_fixture_with_an_unknown_rule_is_refused(recorded, tmp_path):
    config = recorded('inception_fid').config
    images = np.zeros((1, 3, 8, 8), np.uint8)
    for changes, message in (
        ({'weights': 'all ones'}, 'does not tell seed'),
        ({'weights': config['weights'].replace('0.1n', 'x n')}, 'does not tell scale'),
        ({'shapes': None}, 'no shapes or no weights'),
    ):
        text = np.array(json.dumps(config | changes))
        np.savez(tmp_path / 'f.npz', config_json=text, **{'8/images_uint8_nchw': images})
        with pytest.raises(UserError, match=message):
            fixtures.check(tmp_path / 'f.npz')


# The resize


def numpy_resize(x):
    """Tap by tap: output i is at i size / 299, rounded to float32 as there."""
    for axis in (1, 2):
        size = x.shape[axis]
        at = (np.arange(299, dtype=np.float32) * np.float32(size / 299)).astype(np.float64)
        low = np.floor(at).astype(int)
        weight = np.expand_dims(at - low, [a for a in range(x.ndim) if a != axis])
        low, high = (np.minimum(i, size - 1) for i in (low, low + 1))
        x = x.take(low, axis) * (1 - weight) + x.take(high, axis) * weight
    return x


@pytest.mark.parametrize('shape', [(32, 32, 3), (7, 51, 1), (310, 601, 1)])
def test_resize_is_that_of_tensorflow_1(shape):
    x = np.random.default_rng(0).uniform(0, 255, (2, *shape))
    np.testing.assert_allclose(inception.resize(x), numpy_resize(x), rtol=0, atol=255 * 1e-5)


def test_resize_of_299_is_the_identity_and_of_a_constant_a_constant():
    x = jax.random.uniform(jax.random.key(0), (1, 299, 299, 1), maxval=255)
    np.testing.assert_array_equal(inception.resize(x), x)
    constant = inception.resize(jnp.full((1, 5, 64, 3), 200.0))
    np.testing.assert_allclose(constant, 200, rtol=1e-6)


# The input


def test_input_is_of_bytes_and_grey_is_three_channels():
    ends = jnp.stack([jnp.full((4, 4, 1), value) for value in (-1.0, 1.0)])
    found = inception.to_input(ends)
    assert found.shape == (2, 299, 299, 3) and found.dtype == jnp.float32
    np.testing.assert_allclose(found[0], -1, atol=1e-6)
    np.testing.assert_allclose(found[1], 127 / 128, atol=1e-6)
    grey = jax.random.uniform(jax.random.key(0), (1, 8, 8, 1), minval=-1)
    found, tiled = (inception.to_input(x) for x in (grey, jnp.tile(grey, (1, 1, 1, 3))))
    np.testing.assert_allclose(found, tiled, atol=1e-6)


def test_other_channels_are_refused():
    with pytest.raises(UserError, match='images with 4 channels; legal: 1, 3'):
        inception.to_input(jnp.zeros((1, 8, 8, 4)))


def test_average_leaves_out_the_padding_and_a_maximum_keeps_the_size():
    x = np.random.default_rng(0).normal(size=(1, 4, 5, 2)).astype(np.float32)
    found, top = (inception.pooled(inception.Pool(kind), x) for kind in ('average', 'max'))
    assert found.shape == top.shape == x.shape
    for y in range(4):
        for column in range(5):
            window = x[:, max(y - 1, 0) : y + 2, max(column - 1, 0) : column + 2]
            np.testing.assert_allclose(found[:, y, column], window.mean((1, 2)), rtol=1e-5)
            np.testing.assert_array_equal(top[:, y, column], window.max((1, 2)))


def test_program_is_float32_and_has_no_weights_in_it():
    x = jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.bfloat16)
    program = jax.jit(inception.features).lower(inception.shapes(), x)
    assert program.out_info.shape == (1, 2048) and program.out_info.dtype == jnp.float32
    lines = [line for line in program.as_text().splitlines() if 'stablehlo.convolution' in line]
    assert len(lines) == 94 and all('HIGHEST' in line for line in lines)
    assert len(program.as_text()) < 1_000_000
