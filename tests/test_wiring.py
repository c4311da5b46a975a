"""Wiring: two networks as one model, and networks that do not fit what is asked of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax import models
from cm_jax.errors import UserError
from cm_jax.objectives import _coupling
from cm_jax.objectives import build as build_objective
from cm_jax.wiring import net_params, wire
from tests.helpers import tiny
from tests.helpers.objectives import RF, dropped_net, two_heads
from tests.helpers.tiny import settings_of
from tests.helpers.two_networks import wired

# Two networks in one run


def test_two_networks_are_one_model():
    config, parts = wired()
    params = parts.model.init(jax.random.key(0))
    assert set(params) == {models.NET, 'prior'}
    own = net_params(settings_of(config), params)
    plain_config, plain = wired(prior=False)
    bare = jax.eval_shape(plain.model.init, jax.random.key(0))
    assert jax.tree.map(jnp.shape, own) == jax.tree.map(lambda leaf: leaf.shape, bare)
    assert net_params(settings_of(plain_config), own) is own
    x, t = jax.random.normal(jax.random.key(0), (2, 8, 8, 1)), jnp.array([0.4, 0.9])
    label = jnp.array([1, 2])
    found = parts.objective.denoise(params, x, t, label)
    np.testing.assert_array_equal(found, plain.objective.denoise(own, x, t, label))
    other = params | {'prior': jax.tree.map(lambda leaf: leaf + 1, params['prior'])}
    np.testing.assert_array_equal(found, parts.objective.denoise(other, x, t, label))


# Refusals


@pytest.mark.parametrize(
    'change, message',
    [
        (
            lambda c: c.model.update({'heads': 1}),
            r"'catch_up' needs config\.model\.heads = 2, got 1",
        ),
        (
            lambda c: c.prior.update({'name': 'adm_unet'}),
            "network of a prior 'adm_unet'.*song_unet",
        ),
        (lambda c: c.prior.update({'heads': 3}), r'unknown key config\.prior\.heads'),
        (lambda c: c.prior.update({'chanels': 3}), r"config\.prior\.chanels.*mean 'channels'"),
        (lambda c: c.process.update({'t_max': 2.0}), r't_max in \(0, 1\], got 2.0'),
    ],
)
def test_networks_that_do_not_fit_are_refused(change, message):
    config = tiny.get_config('catch_up')
    change(config)
    with pytest.raises(UserError, match=message):
        wire(settings_of(config), (8, 8, 1), 10)


def test_a_prior_is_refused_where_none_is_taken_and_half_a_law_of_t():
    config = tiny.get_config('ect')
    config.prior.update({'name': 'song_unet', 'channels': 4, 'channel_mult': (1,)})
    with pytest.raises(UserError, match=r"'ect' takes no prior; config\.prior must be empty"):
        wire(settings_of(config), (8, 8, 1), 10)
    with pytest.raises(UserError, match=r'prior_weight must be >= 0, got -1'):
        _coupling.make_coupling(two_heads, -1.0)
    for settings in ({'p_mean': 0.0}, {'p_std': 1.0}):
        with pytest.raises(UserError, match=r'both p_mean and p_std .*or neither'):
            build_objective({'name': 'flow'} | settings, dropped_net, RF)
