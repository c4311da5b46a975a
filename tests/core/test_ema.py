"""Averages: gamma, profiles, and coefficients that are those of the recursion."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax.core import ema
from cm_jax.errors import UserError
from tests.helpers.averages import KEPT
from tests.helpers.trees import snapshots


@pytest.mark.parametrize('k, rate', [(1, 0.9), (2, 0.5), (20, 0.9), (50, 0.999)])
def test_ema_coefficients_are_the_recursive_average(k, rate):
    trees = snapshots(k)
    average = trees[0]
    for params in trees[1:]:
        average = ema.update(average, params, rate)
    coefficients = ema.coefficients(k, rate)
    combined = jax.tree.map(
        lambda *leaves: np.tensordot(coefficients, np.float64(leaves), 1), *trees
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6, rtol=1e-6), combined, average
    )


def test_ema_coefficients_sum_to_one():
    for k, rate in itertools.product((1, 2, 30), (0.0, 0.3, 0.99, 1.0)):
        total = ema.coefficients(k, rate).sum()
        np.testing.assert_allclose(total, 1, rtol=1e-12, err_msg=f'{k=} {rate=}')


def test_ema_coefficients_at_the_ends_of_the_rate():
    np.testing.assert_array_equal(ema.coefficients(5, 0.0), [0, 0, 0, 0, 1])
    np.testing.assert_array_equal(ema.coefficients(5, 1.0), [1, 0, 0, 0, 0])


def profile(t, gamma, times):
    """(gamma + 1) tau^gamma / t^(gamma + 1) up to t, 0 after it."""
    return np.where(times <= t, (gamma + 1) / t * (times / t) ** gamma, 0)


@pytest.mark.parametrize('sigma_rel', [0.01, 0.05, 0.1, 0.2, 0.28])
def test_gamma_gives_the_profile_its_width(sigma_rel):
    gamma = ema.sigma_rel_to_gamma(sigma_rel)
    times = (np.arange(400_000) + 0.5) / 400_000
    density = profile(1.0, gamma, times)
    mean = np.mean(density * times)
    deviation = np.sqrt(np.mean(density * (times - mean) ** 2))
    np.testing.assert_allclose([np.mean(density), deviation], [1, sigma_rel], rtol=1e-6)


def test_gamma_of_the_papers_examples():
    """EDM2, section 3.1: 0.05 and 0.10 are gamma 16.97 and 6.94."""
    np.testing.assert_allclose([ema.sigma_rel_to_gamma(s) for s in KEPT], [16.97, 6.94], atol=5e-3)


@pytest.mark.parametrize('sigma_rel', [0.0, -0.1, 0.29, 1.0, np.nan])
def test_widths_that_no_profile_has_are_refused(sigma_rel):
    with pytest.raises(UserError, match=r'sigma_rel must lie in \(0, 0\.2887\), got'):
        ema.sigma_rel_to_gamma(sigma_rel)


@pytest.mark.parametrize('sigma_rel', KEPT)
def test_share_keeps_its_precision_at_large_steps_and_is_one_at_the_first(sigma_rel):
    share, exponent = jax.jit(ema.power_share(sigma_rel)), ema.sigma_rel_to_gamma(sigma_rel) + 1
    assert share(jnp.int32(1)) == 1
    for t in (2, 100, 10**5, 10**7):
        expected = -np.expm1(exponent * np.log1p(-1 / t))
        np.testing.assert_allclose(share(jnp.int32(t)), expected, rtol=1e-6)


@pytest.mark.parametrize('sigma_rel', [0.02, 0.1, 0.25])
def test_coefficients_are_the_recursion(sigma_rel):
    share = ema.power_share(sigma_rel)
    rows = np.zeros(30)
    for t in range(1, 31):
        rows *= 1 - float(share(t))
        rows[t - 1] += float(share(t))
    found = ema.power_coefficients(range(1, 31), sigma_rel)
    np.testing.assert_allclose(found, rows, atol=2e-7)
    np.testing.assert_allclose(found.sum(), 1, rtol=1e-12)


def test_coefficients_of_some_checkpoints_are_sums_over_the_steps_between():
    every = ema.power_coefficients(range(1, 41), 0.1)
    some = ema.power_coefficients([0, 10, 20, 25, 40], 0.1)
    np.testing.assert_allclose(some[0], 0)
    sums = [every[a:b].sum() for a, b in ((0, 10), (10, 20), (20, 25), (25, 40))]
    np.testing.assert_allclose(some[1:], sums, rtol=1e-12)
    np.testing.assert_array_equal(ema.power_coefficients([7], 0.1), [1])


@pytest.mark.parametrize('eta', [0.1, 0.2, 0.4])
@pytest.mark.parametrize('times', [[0], [0, 1], range(30), [0, 20, 40, 500, 510]])
def test_bema_coefficients_are_its_recursion(eta, times):
    """Algorithm 1 of arXiv 2508.00180, on random vectors."""
    thetas = np.random.default_rng(0).standard_normal((len(times), 7))
    average = thetas[0]
    for t, theta in zip(times[1:], thetas[1:]):
        beta = (10 + t) ** -0.5
        average = (1 - beta) * average + beta * theta
    corrected = average + (10 + times[-1]) ** -eta * (thetas[-1] - thetas[0])
    found = ema.bema_coefficients(times, eta)
    np.testing.assert_allclose(found @ thetas, corrected, atol=1e-12)
    np.testing.assert_allclose(found.sum(), 1, rtol=1e-12)


def test_bema_at_the_ends_of_its_powers():
    """A share of 1 keeps the last weights alone, and a large eta corrects nothing."""
    plain = ema.bema_coefficients(range(5), 500.0, kappa=0.0)
    np.testing.assert_allclose(plain, [0, 0, 0, 0, 1], atol=1e-12)
    whole = ema.bema_coefficients(range(5), 0.0, kappa=500.0)
    np.testing.assert_allclose(whole, [0, 0, 0, 0, 1], atol=1e-12)  # theta_0 + (theta_4 - theta_0)


def test_averages_by_name_and_their_ranges():
    found = ema.averages([0.999, 0.5], [0.10, 0.05])
    assert list(found) == ['0.999', '0.5', 'power0.1', 'power0.05']
    assert found['0.5'](3) == 0.5
    with pytest.raises(UserError, match=r'sigma_rel must lie in \(0, 0\.2887\), got 0\.3'):
        ema.averages([], [0.05, 0.3])
