"""The learned prior: its KL in closed form, its noise, and what it learns from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax.objectives import _coupling
from cm_jax.objectives import build as build_objective
from tests.helpers.catch_up import build, run_loss
from tests.helpers.objectives import RF, dropped_net, make_params, two_heads


def test_kl_is_the_closed_form():
    """Against the integral of q log(q/p) on a grid; 0 at N(0, 1) alone."""
    mean, log_variance = np.array([0.0, 0.7, -1.2]), np.array([0.0, -0.5, 1.0])
    x = np.linspace(-25, 25, 200_001)
    std = np.exp(log_variance / 2)[:, None]
    log_q = -((x - mean[:, None]) ** 2) / (2 * std**2) - np.log(std)
    wanted = np.sum(np.exp(log_q) * (log_q + x**2 / 2), axis=1) * (x[1] - x[0]) / np.sqrt(2 * np.pi)
    found = _coupling.kl_to_normal(jnp.asarray(mean)[:, None], jnp.asarray(log_variance)[:, None])
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    both = _coupling.kl_to_normal(jnp.asarray(mean)[None], jnp.asarray(log_variance)[None])
    np.testing.assert_allclose(both, [wanted.mean()], rtol=1e-5)


def test_noise_of_the_prior_has_its_mean_and_variance():
    def prior(params, x, cond, label=None, key=None):
        assert label is None
        np.testing.assert_array_equal(cond, 1)
        return jnp.concatenate([x, jnp.full_like(x, params)], axis=-1)

    x0 = jnp.tile(jnp.array([0.5, -0.3]), (20_000, 1, 1, 1))
    x1, loss, metrics = _coupling.make_coupling(prior, 20.0)(-1.0, x0, jax.random.key(0))
    np.testing.assert_allclose(jnp.mean(x1, axis=(0, 1, 2)), [0.5, -0.3], atol=0.02)
    np.testing.assert_allclose(jnp.std(x1), np.sqrt(np.exp(-1) + 0.4**2), rtol=0.02)
    np.testing.assert_allclose(loss, 20 * metrics['kl'], rtol=1e-6)
    kl = (np.mean([0.25, 0.09]) + np.exp(-1) - 1 + 1) / 2
    np.testing.assert_allclose(metrics['kl'], kl, rtol=1e-5)


@pytest.mark.parametrize('name', ['flow', 'catch_up'])
def test_a_prior_of_standard_noise_is_independent_noise(name):
    """Its mean 0 and log variance 0: no KL, and the losses have one mean."""
    zero = lambda params, x, cond, label=None, key=None: 0 * two_heads(params, x, cond)  # noqa: E731
    settings = {'name': name} | ({'order': 1} if name == 'catch_up' else {})
    without = build_objective(settings, dropped_net, RF)
    learned = build_objective(settings | {'prior_weight': 3.0}, dropped_net, RF, prior=zero)
    draws = range(100)
    loss = [np.mean([run_loss(o, key=k)[0].mean() for k in draws]) for o in (without, learned)]
    np.testing.assert_allclose(*loss, rtol=0.1)
    np.testing.assert_array_equal(run_loss(learned)[1]['kl'], 0)


def test_prior_learns_from_the_velocity_too():
    """Through x1: with the KL's weight 0 its gradient is not 0."""

    def prior(params, x, cond, label=None, key=None):
        return jnp.concatenate([params['shift'] * x, 0 * x], axis=-1)

    def net(params, x, cond, label=None, key=None):
        return dropped_net(params['net'], x, cond, label, key)

    objective = build(1, net, prior, prior_weight=0.0)
    params = {'net': make_params(), 'shift': jnp.float32(0.3)}

    def mean(params):
        return jnp.mean(run_loss(objective, params=params)[0])

    assert abs(jax.grad(mean)(params)['shift']) > 1e-3
