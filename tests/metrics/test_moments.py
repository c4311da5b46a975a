"""Streamed moments: those of two passes, merged in any order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax.metrics import moments as mo
from cm_jax.metrics.frechet import frechet_distance
from cm_jax.metrics.moments import Moments
from tests.helpers.moments import assert_moments_close, features, gaussian, random_covariance


def test_streamed_moments_equal_two_pass_with_a_large_mean():
    x = features()
    streamed = mo.empty(12)
    for part in np.array_split(x, [1, 2, 100, 700]):
        streamed = mo.update(streamed, part)
    assert_moments_close(streamed, mo.of(x), rtol=1e-9)
    np.testing.assert_allclose(mo.covariance(streamed), np.cov(x, rowvar=False), rtol=1e-9)


@pytest.mark.slow
def test_streamed_moments_of_inceptions_size_equal_two_pass():
    """50,000 x 2048, with a mean of 1e3 standard deviations, in batches of 250 and of 2500."""
    count, d, part = 50_000, 2048, 2500
    scale = np.random.default_rng(0).uniform(0.1, 1, d)

    def batch(i):
        return np.random.default_rng([1, i]).normal(size=(part, d)) * scale[None] + 1e3

    streamed, mean, scatter = mo.empty(d), np.zeros(d), np.zeros((d, d))
    for i in range(count // part):
        mean += batch(i).sum(0) / count
    for i in range(count // part):
        x = batch(i)
        for rows in np.split(x, 10 if i < 2 else 1):
            streamed = mo.update(streamed, rows)
        scatter += (x - mean[None]).T @ (x - mean[None])
    assert streamed.count == count and not mo.rank_deficient(streamed)
    assert_moments_close(streamed, Moments(count, mean, scatter), rtol=1e-9)
    assert frechet_distance(streamed, streamed) < 1e-6 * np.trace(mo.covariance(streamed))


def test_merge_is_associative_commutative_and_has_empty_as_neutral():
    a, b, c = (mo.of(part) for part in np.array_split(features(), [10, 600]))
    assert_moments_close(mo.merge(mo.merge(a, b), c), mo.merge(a, mo.merge(b, c)), rtol=1e-9)
    assert_moments_close(mo.merge(a, b), mo.merge(b, a), rtol=1e-9)
    assert_moments_close(mo.merge(a, mo.empty(12)), a, rtol=0)
    assert_moments_close(mo.merge(mo.empty(12), a), a, rtol=0)
    assert mo.merge(mo.empty(12), mo.empty(12)).count == 0
    assert mo.of(np.zeros((0, 12))).count == 0


def test_centred_sums_agree_with_float64():
    x = features(mean=3.0).astype(np.float32)
    shift = x[:100].mean(0)
    sums, outer = jax.jit(mo.centred_sums)(x, shift)
    assert sums.dtype == outer.dtype == jnp.float32
    assert_moments_close(mo.from_centred_sums(len(x), sums, outer, shift), mo.of(x), rtol=1e-5)


def test_centred_sums_of_parts_merge():
    """As in a search: a shift from the reference, parts summed on device and merged on host."""
    x = features(mean=20.0).astype(np.float32)
    shift = np.full(12, 20.1)
    merged = mo.empty(12)
    for part in np.split(x, 4):
        merged = mo.merge(merged, mo.from_centred_sums(250, *mo.centred_sums(part, shift), shift))
    assert_moments_close(merged, mo.of(x), rtol=1e-5)
    reference = gaussian(np.full(12, 20.0), np.eye(12))
    expected = frechet_distance(mo.of(x), reference)
    np.testing.assert_allclose(frechet_distance(merged, reference), expected, rtol=1e-5)


def test_moments_refuse_other_shapes():
    with pytest.raises(ValueError, match=r'shape \(3,\), not \[n, d\]'):
        mo.of(np.zeros(3))
    with pytest.raises(ValueError, match='features of 3 and of 2'):
        mo.merge(mo.empty(3), mo.empty(2))


def test_moments_of_a_covariance_give_it_back():
    c = random_covariance(5, 0)
    for count in (None, 7):
        found = mo.of_covariance(np.ones(5), c, count)
        np.testing.assert_allclose(mo.covariance(found), c, rtol=1e-15)
    np.testing.assert_array_equal(mo.covariance(mo.of_covariance(np.ones(5), c)), c)
