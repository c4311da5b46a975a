"""Averages made post hoc: the fit of profiles, and the averages of a random walk."""

import itertools

import chex
import numpy as np
import pytest

from cm_jax.core import ema, tree
from cm_jax.run.averages import MAX_ERROR
from tests.helpers.averages import KEPT, STEPS, averaged, walk


def profile(t, gamma, times):
    """(gamma + 1) tau^gamma / t^(gamma + 1) up to t, 0 after it."""
    return np.where(times <= t, (gamma + 1) / t * (times / t) ** gamma, 0)


def snapshots(every, last=STEPS):
    """(steps, sigma_rels) of the averages that a trajectory stores."""
    return zip(*itertools.product(range(every, last + 1, every), KEPT))


def test_inner_products_are_the_integrals():
    times = (np.arange(200_000) + 0.5) / 200_000
    for ta, a, tb, b in ((1.0, 6.94, 1.0, 16.97), (0.4, 6.94, 1.0, 3.0), (0.9, 16.97, 0.3, 6.94)):
        integral = np.mean(profile(ta, a, times) * profile(tb, b, times))
        np.testing.assert_allclose(ema._inner_product(ta, a, tb, b), integral, rtol=2e-4)


def test_a_stored_average_is_itself():
    steps, sigma_rels = snapshots(20)
    for i in (0, 7, len(steps) - 1):
        upto = [k for k in range(len(steps)) if steps[k] <= steps[i]]
        stored = [steps[k] for k in upto], [sigma_rels[k] for k in upto]
        found = ema.posthoc(*stored, steps[i], sigma_rels[i])
        np.testing.assert_allclose(found.coefficients, np.eye(len(steps))[i, upto], atol=1e-9)
        assert found.error < 1e-6


@pytest.mark.parametrize('sigma_rel', [0.02, 0.03, 0.07, 0.12, 0.2])
def test_posthoc_is_the_least_squares_fit_of_the_profile(sigma_rel):
    """Against numpy's least squares on finely sampled profiles, with the sum to 1 put in."""
    steps, sigma_rels = map(np.array, snapshots(30))
    found = ema.posthoc(steps, sigma_rels, STEPS, sigma_rel)
    times = (np.arange(20_000) + 0.5) / 20_000 * STEPS
    basis = np.array(
        [profile(t, ema.sigma_rel_to_gamma(s), times) for t, s in zip(steps, sigma_rels)]
    )
    target = profile(STEPS, ema.sigma_rel_to_gamma(sigma_rel), times)
    rest = (basis[:-1] - basis[-1]).T  # c_N = 1 - the others
    others = np.linalg.lstsq(rest, target - basis[-1], rcond=None)[0]
    expected = np.append(others, 1 - others.sum())
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found.coefficients, expected, atol=0.02 * scale)
    np.testing.assert_allclose(found.coefficients.sum(), 1, rtol=1e-9)
    error = np.linalg.norm(found.coefficients @ basis - target) / np.linalg.norm(target)
    np.testing.assert_allclose(found.error, error, rtol=0.02)


@pytest.mark.parametrize(
    'step, sigma_rel, bound',
    [
        (240, 0.03, 0.02),
        (240, 0.07, 0.002),
        (240, 0.15, 0.005),
        (160, 0.07, 0.003),
        (240, 0.2, 0.01),
    ],
)
def test_posthoc_average_of_a_random_walk_is_the_running_one(step, sigma_rel, bound):
    """In units of the distance that the weights went in the width of the average."""
    weights = walk()
    kept = {s: averaged(weights, s) for s in KEPT}
    steps, sigma_rels = snapshots(10, step)
    found = ema.posthoc(steps, sigma_rels, step, sigma_rel)
    made = sum(c * kept[s][t - 1] for c, t, s in zip(found.coefficients, steps, sigma_rels))
    expected = averaged(weights, sigma_rel)[step - 1]
    moved = np.sqrt(sigma_rel * step)
    assert np.sqrt(np.mean((made - expected) ** 2)) < bound * moved
    assert np.sqrt(np.mean((kept[0.1][step - 1] - expected) ** 2)) > 0.05 * moved  # not trivial


def test_more_snapshots_and_nearer_widths_fit_better():
    by_count = [ema.posthoc(*snapshots(every), STEPS, 0.03).error for every in (60, 30, 10, 5)]
    by_width = [ema.posthoc(*snapshots(10), STEPS, s).error for s in (0.01, 0.02, 0.03, 0.045)]
    assert by_count == sorted(by_count, reverse=True)
    assert by_width == sorted(by_width, reverse=True)
    assert by_width[0] > MAX_ERROR > by_width[2]


def test_weights_that_never_changed_stay_as_they_are():
    for sigma_rel in (0.015, 0.07, 0.25):
        steps, sigma_rels = snapshots(60)
        coefficients = ema.posthoc(steps, sigma_rels, STEPS, sigma_rel).coefficients
        constant = {'fixed_freqs': np.float32([3.0, -50.0])}
        found = tree.weighted_sum(coefficients, itertools.repeat(constant, len(steps)))
        chex.assert_trees_all_close(found, constant, rtol=1e-5)
