"""Moments of known mean and covariance."""

import numpy as np

from cm_jax.metrics.moments import Moments


def gaussian(mean, covariance, count=1000):
    """Moments whose unbiased covariance is the one given."""
    covariance = np.asarray(covariance, np.float64)
    return Moments(count, np.asarray(mean, np.float64), covariance * (count - 1))


def random_covariance(d, seed, rank=None):
    factor = np.random.default_rng(seed).normal(size=(d, rank or 3 * d))
    return factor @ factor.T / factor.shape[1]


def assert_moments_close(a, b, rtol):
    assert a.count == b.count
    np.testing.assert_allclose(a.mean, b.mean, rtol=rtol)
    scale = np.abs(b.scatter).max()
    np.testing.assert_allclose(a.scatter, b.scatter, rtol=rtol, atol=rtol * scale)


def features(n=1000, d=12, mean=1e5):
    return np.random.default_rng(0).normal(size=(n, d)) @ random_covariance(d, 3) + mean
