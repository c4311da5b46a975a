"""EDM2's loss, weighted by the uncertainty that the network estimates: closed forms, and its head."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax.config import base_config
from cm_jax.errors import UserError
from cm_jax.objectives import build as build_objective
from cm_jax.wiring import wire
from tests.helpers.objectives import BATCH, SIGMA_DATA, VE, dropped_net, make_batch, make_params
from tests.helpers.tiny import settings_of

SETTINGS = {'name': 'edm', 'sigma_data': SIGMA_DATA}
KEY = jax.random.key(4)


def net(params, *args):
    return dropped_net(params['net'], *args)


def losses(u, weights=None, seen=None):
    """Loss and metrics of a network of these weights that estimates u [B], whatever the level."""

    def log_variance(params, cond):
        if seen is not None:
            seen.append(cond)
        return params['u']

    settings = SETTINGS | {'uncertainty': True}
    objective = build_objective(settings, net, VE, log_variance=log_variance)
    params = {'net': make_params() if weights is None else weights, 'u': u}
    return objective.loss(params, (), (), make_batch(), KEY, jnp.int32(0))


def plain_loss(weights=None):
    weights = make_params() if weights is None else weights
    objective = build_objective(SETTINGS, net, VE)
    return objective.loss({'net': weights}, (), (), make_batch(), KEY, jnp.int32(0))[0]


def test_the_minimum_over_the_uncertainty_is_the_log_of_the_plain_loss():
    plain = plain_loss()
    best = jnp.log(plain)
    loss, metrics = losses(best)
    np.testing.assert_allclose(loss, 1 + jnp.log(plain), rtol=1e-5)
    np.testing.assert_allclose(metrics['distance'], plain, rtol=1e-6)
    slope = jax.grad(lambda u: jnp.sum(losses(u)[0]))(best)
    np.testing.assert_allclose(slope, 0, atol=1e-5)
    for step in (-0.5, 0.5):
        assert np.all(losses(best + step)[0] > loss + 0.1)


def test_the_network_learns_from_the_plain_loss_over_the_exponential():
    u = jnp.linspace(-2, 2, BATCH)
    found, plain = (
        jax.jacrev(f)(make_params()) for f in (lambda w: losses(u, w)[0], lambda w: plain_loss(w))
    )
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(plain)):
        scale = jnp.exp(-u).reshape(-1, *[1] * (b.ndim - 1))
        np.testing.assert_allclose(a, scale * b, rtol=1e-3, atol=1e-5 * float(jnp.abs(b).max()))


def test_the_estimate_is_given_the_noise_input_of_the_network():
    seen = []
    _, metrics = losses(jnp.zeros(BATCH), seen=seen)
    np.testing.assert_allclose(seen[0], jnp.log(metrics['t'])[:, None] / 4, rtol=1e-6)


def test_the_head_of_edm2_learns():
    config = base_config()
    config.model.update({'name': 'edm2_unet', 'channels': 4, 'channel_mult': (1,), 'num_blocks': 1})
    config.model.update({'attn_resolutions': (), 'channels_per_head': 4, 'logvar_channels': 8})
    config.objective.update({'sigma_data': SIGMA_DATA, 'uncertainty': True})
    parts = wire(settings_of(config), (4, 4, 2), 0)
    params = jax.jit(parts.model.init)(jax.random.key(0))

    @jax.jit
    @jax.grad
    def slope(head):
        args = (params | {'logvar_linear': head}, (), (), make_batch(), KEY, jnp.int32(0))
        return jnp.mean(parts.objective.loss(*args)[0])

    assert np.all(np.abs(slope(params['logvar_linear'])['kernel']) > 1e-8)


def test_a_network_without_an_estimate_is_refused():
    config = base_config()
    config.objective.update({'sigma_data': SIGMA_DATA, 'uncertainty': True})
    with pytest.raises(UserError, match=r"config\.model\.name must be 'edm2_unet'"):
        wire(settings_of(config), (8, 8, 1), 0)
