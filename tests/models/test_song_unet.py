"""The DDPM++ U-Net: sizes, precision, labels, dropout, refusals. Papers' numbers: test_networks."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax import models
from cm_jax.core import tree
from cm_jax.errors import UserError

SHAPE = (8, 8, 3)
SMALL = {'name': 'song_unet', 'channels': 8, 'channel_mult': (1, 2), 'num_blocks': 1}


class Small(NamedTuple):
    net: Callable  # jitted
    params: dict


@functools.cache
def small(num_classes=0, **settings):
    """A small network with attention, and weights that are not near 0 as the initial ones are."""
    model = models.build(SMALL | {'attn_resolutions': (4,)} | settings, SHAPE, num_classes)
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        return jnp.float32((path[-1].key == 'scale') + 0.2 * rng.standard_normal(leaf.shape))

    shapes = jax.eval_shape(model.init, jax.random.key(0))
    return Small(jax.jit(model.net), jax.tree_util.tree_map_with_path(draw, shapes))


def inputs(batch=3):
    x = jax.random.normal(jax.random.key(2), (batch, *SHAPE))
    return x, jnp.linspace(-1.5, 1.0, batch)[:, None]


def relative_error(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


def test_defaults_are_edms_cifar10_network():
    model = models.build({'name': 'song_unet'}, (32, 32, 3), 0)
    assert tree.count(jax.eval_shape(model.init, jax.random.key(0))) == 55_732_739


# Properties


def test_output_has_the_images_shape_for_any_channels_and_sizes():
    for shape in ((8, 8, 1), (8, 12, 3), (28, 28, 1)):
        model = models.build(SMALL, shape, 0)
        params = jax.eval_shape(model.init, jax.random.key(0))
        x, cond = jnp.zeros((2, *shape)), jnp.zeros((2, 1))
        assert jax.eval_shape(model.net, params, x, cond).shape == x.shape


def test_initial_weights_are_xavier_uniform_and_small_at_the_end_of_each_branch():
    """U(-a, a), a = scale sqrt(6 / (fan_in + fan_out)); scale 1e-5 makes F and each branch nearly 0."""
    model = models.build(SMALL | {'channels': 32, 'attn_resolutions': (4,)}, SHAPE, 0)
    of_layer = {
        ('enc_8_block0', 'conv0'): 1,
        ('enc_8_block0', 'conv1'): 1e-5,
        ('dec_4_in0', 'qkv'): np.sqrt(0.2),
        ('dec_4_in0', 'proj'): 1e-5,
        ('map_layer1',): 1,
        ('out_conv',): 1e-5,
    }

    def chosen(key):
        params = model.init(key)
        return [functools.reduce(dict.get, path, params) for path in of_layer]

    for layer, scale in zip(jax.jit(chosen)(jax.random.key(0)), of_layer.values()):
        kernel = layer['kernel']
        fans = np.prod(kernel.shape[:-2]) * (kernel.shape[-2] + kernel.shape[-1])
        largest = scale * np.sqrt(6 / fans)
        assert kernel.dtype == jnp.float32
        assert 0.98 * largest < np.abs(kernel).max() <= largest
        np.testing.assert_allclose(np.std(kernel), largest / np.sqrt(3), rtol=0.05)
        np.testing.assert_array_equal(layer['bias'], 0)


def test_bfloat16_output_is_float32_and_near():
    net, params = small()
    half, _ = small(dtype='bfloat16')
    x, cond = inputs()
    exact, found = net(params, x, cond), half(params, x, cond)
    assert found.dtype == jnp.float32
    assert 0 < relative_error(found, exact) < 2e-2


def test_examples_do_not_see_each_other():
    net, params = small()
    x, cond = inputs()
    found = net(params, x.at[0].set(5.0), cond.at[0].set(-3.0))
    np.testing.assert_array_equal(found[1:], net(params, x, cond)[1:])


def test_noise_level_and_label_matter_and_no_label_is_the_zero_label():
    net, params = small(num_classes=3)
    x, cond = inputs()
    labels = [net(params, x, cond, jnp.full(3, label)) for label in range(3)]
    none = net(params, x, cond, None)
    for i, one in enumerate([*labels, none]):
        assert all(relative_error(one, other) > 1e-3 for other in [*labels, none][:i])
    outside = net(params, x, cond, jnp.full(3, -1))  # one-hot encoded, all zeros
    np.testing.assert_array_equal(none, outside)
    assert relative_error(net(params, x, cond + 0.5), none) > 1e-3


def test_unconditional_network_ignores_labels():
    net, params = small()
    x, cond = inputs()
    np.testing.assert_array_equal(net(params, x, cond, jnp.arange(3)), net(params, x, cond))


def test_dropout_follows_the_key():
    net, params = small(dropout=0.3)
    plain, _ = small(dropout=0.0)
    x, cond = inputs()
    key, other = jax.random.split(jax.random.key(5))
    without = net(params, x, cond)
    np.testing.assert_array_equal(without, net(params, x, cond))
    np.testing.assert_allclose(without, plain(params, x, cond), atol=1e-5)
    dropped = net(params, x, cond, None, key)
    np.testing.assert_array_equal(dropped, net(params, x, cond, None, key))
    assert relative_error(dropped, without) > 1e-2
    assert relative_error(dropped, net(params, x, cond, None, other)) > 1e-2


# Refusals


@pytest.mark.parametrize(
    'settings, message',
    [
        ({'name': 'unet'}, r"unknown network 'unet'.*legal: .*song_unet"),
        ({'chanels': 8}, r"did you mean 'channels'.*legal: .*num_blocks"),
        ({'channels': 6}, 'multiple of 4, got 6'),
        ({'channel_mult': (1, 2, 2, 2, 2)}, '8x8 cannot be halved 4 times'),
        ({'channel_mult': ()}, 'channel_mult'),
        ({'dtype': 'float64'}, r"unknown model.dtype 'float64'.*legal: bfloat16, float16, float32"),
    ],
)
def test_wrong_settings_are_refused_with_the_legal_ones(settings, message):
    with pytest.raises(UserError, match=message):
        models.build(SMALL | settings, SHAPE, 0)
