"""What all networks have: precision, rematerialisation, labels, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cm_jax import models
from cm_jax.core import tree
from cm_jax.errors import UserError
from tests.helpers.networks import (
    NETWORKS,
    SHAPE,
    SMALL,
    inputs,
    is_fixed,
    jitted,
    relative_error,
    weights,
)

# Precision and memory


@NETWORKS
def test_output_of_16_bits_is_float32_and_near(network):
    x, cond = inputs()
    exact = jitted(network)(weights(network), x, cond)
    for dtype, bound in (('bfloat16', 2e-2), ('float16', 3e-3)):
        found = jitted(network, dtype=dtype)(weights(network), x, cond)
        assert found.dtype == jnp.float32
        assert 0 < relative_error(found, exact) < bound, dtype


@pytest.mark.slow
@pytest.mark.parametrize(
    'network',
    [
        'ddpmpp',
        pytest.param('edm2', marks=pytest.mark.slow),
        pytest.param('ncsnpp', marks=pytest.mark.slow),
        pytest.param('adm', marks=pytest.mark.slow),
    ],
)
def test_rematerialised_gradient_is_the_plain_one(network):
    x, cond = inputs()
    params, key = weights(network), jax.random.key(7)
    found = {}
    for remat in ((), (8, 4)):
        settings = SMALL[network] | {'dropout': 0.2, 'remat': remat}
        net = models.build(settings, SHAPE, 0).net
        loss = jax.value_and_grad(lambda p, net=net: jnp.mean(net(p, x, cond, None, key) ** 2))
        assert ('remat' in str(jax.make_jaxpr(loss)(params))) == bool(remat)
        found[remat] = jax.jit(loss)(params)
    plain, again = found.values()
    constants = {path: leaf for path, leaf in tree.flatten(plain[1]).items() if is_fixed(path)}
    assert bool(constants) == (network in ('ncsnpp', 'edm2'))
    assert not any(np.any(leaf) for leaf in constants.values())
    np.testing.assert_allclose(again[0], plain[0], rtol=1e-5)  # the same dropout masks
    scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(plain[1]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * scale), *(plain, again))


@pytest.mark.parametrize('network', ['adm', 'edm2'])
def test_initial_network_is_nearly_zero_and_learns(network):
    model = models.build(SMALL[network] | {'channel_mult': (1,)}, SHAPE, 0)
    params = jax.jit(model.init)(jax.random.key(0))
    x, cond = inputs()

    def loss(params):
        f = model.net(params, x, cond)
        return jnp.mean((f - x) ** 2), f

    gradient, f = jax.jit(jax.grad(loss, has_aux=True))(params)
    assert np.abs(f).max() < 1e-2
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))
    assert optax.tree.norm(gradient) > 1e-3


# Conditioning


@pytest.mark.parametrize('network', ['ddpmpp', 'ncsnpp', 'adm'])
def test_augmentation_labels_are_read_and_none_are_zeros(network):
    settings = {'augment_dim': 4}
    net, params = jitted(network, **settings), weights(network, **settings)
    x, cond = inputs()
    zeros, ones = jnp.zeros((3, 4)), jnp.ones((3, 4))
    plain = net(params, x, cond)
    np.testing.assert_array_equal(plain, net(params, x, jnp.concatenate([cond, zeros], axis=1)))
    other = net(params, x, jnp.concatenate([cond, ones], axis=1))
    assert relative_error(other, plain) > 1e-3
    with pytest.raises(UserError, match=r'\(3, 1\) or \(3, 5\) with augm.*, got \(3, 2\)'):
        net(params, x, jnp.concatenate([cond, cond], axis=1))


@NETWORKS
def test_more_conditions_than_the_network_has_are_refused(network):
    x, cond = inputs()
    with pytest.raises(UserError, match=r'cond of shape \(3, 1\), got \(3, 2\)'):
        jitted(network)(weights(network), x, jnp.concatenate([cond, cond], axis=1))


@NETWORKS
def test_labels_matter_and_none_is_no_class(network):
    net, params = jitted(network, 3), weights(network, 3)
    x, cond = inputs()
    found = [net(params, x, cond, jnp.full(3, label)) for label in (-1, 0, 1, 2)]
    np.testing.assert_array_equal(found[0], net(params, x, cond))
    for i, one in enumerate(found):
        assert all(relative_error(one, other) > 1e-3 for other in found[:i])


@pytest.mark.parametrize('network', ['ddpmpp', 'adm'])
def test_label_dropout_acts_in_training_only(network):
    net, params = jitted(network, 3, label_dropout=0.5), weights(network, 3)
    x, cond = inputs()
    x, cond = jnp.repeat(x[:1], 32, axis=0), jnp.repeat(cond[:1], 32, axis=0)
    label = jnp.ones(32, jnp.int32)
    with_label, without_label = net(params, x, cond, label), net(params, x, cond, None)
    found = net(params, x, cond, label, jax.random.key(3))
    dropped = [relative_error(one, other) < 1e-5 for one, other in zip(found, without_label)]
    kept = [relative_error(one, other) < 1e-5 for one, other in zip(found, with_label)]
    assert all(np.not_equal(dropped, kept)) and 4 < sum(dropped) < 28


def test_noise_scale_multiplies_the_noise_input():
    x, cond = inputs()
    params = weights('adm')
    scaled = jitted('adm', noise_scale=1000.0)(params, x, cond)
    assert relative_error(scaled, jitted('adm')(params, x, 1000.0 * cond)) < 1e-4


# Refusals


@pytest.mark.parametrize(
    'network, settings, message',
    [
        ('ddpmpp', {'embedding': 'sine'}, "model.embedding 'sine'.*legal: fourier, positional"),
        ('ddpmpp', {'encoder': 'skip'}, "model.encoder 'skip'.*legal: residual, standard"),
        ('ddpmpp', {'resample_filter': (1, 2, 1)}, r'one of \(1, 1\), \(1, 3, 3, 1\), got'),
        ('ddpmpp', {'remat': (16,)}, 'remat names resolution 16; this network has 8, 4'),
        ('adm', {'channels_per_head': 10}, r'32 channels cannot be split into 3 heads .* is 10'),
        ('adm', {'channels': 20, 'channels_per_head': 6}, 'channels cannot be split'),
        ('adm', {'dtype': 'half'}, "model.dtype 'half'.*legal: bfloat16, float16, float32"),
        ('edm2', {'precision': 'low'}, "model.precision 'low'.*legal: default, high, highest"),
        ('edm2', {'label_dropout': 0.1}, 'unknown key config.model.label_dropout'),
    ],
)
def test_wrong_settings_are_refused_with_the_legal_ones(network, settings, message):
    with pytest.raises(UserError, match=message):
        models.build(SMALL[network] | settings, SHAPE, 0)
