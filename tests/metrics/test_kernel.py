"""The kernel distance: pair by pair, in closed form, unbiased."""

import math

import numpy as np
import pytest

from cm_jax.metrics.kernel import kernel_distance, mmd_squared


def normal(n, d, seed=0, mean=0.0, std=1.0):
    return mean + std * np.random.default_rng(seed).normal(size=(n, d))


def loops_mmd(a, b):
    """Pair by pair."""

    def k(x, y):
        return (sum(x * y) / len(x) + 1) ** 3

    def within(x):
        n = len(x)
        pairs = [k(x[i], x[j]) for i in range(n) for j in range(n) if i != j]
        return sum(pairs) / (n * (n - 1))

    between = sum(k(x, y) for x in a for y in b) / (len(a) * len(b))
    return within(a) + within(b) - 2 * between


def test_mmd_is_that_of_loops_and_symmetric():
    a, b = normal(9, 5), normal(7, 5, seed=1, mean=0.3)
    np.testing.assert_allclose(mmd_squared(a, b), loops_mmd(a, b), rtol=1e-12)
    np.testing.assert_allclose(mmd_squared(a, b), mmd_squared(b, a), rtol=1e-12)


def test_mmd_of_gaussians_in_one_dimension():
    """(xy + 1)^3 compares three moments: MMD^2 = sum_j C(3, j) (E x^j - E y^j)^2."""
    mean, std = 0.5, 1.5
    moments = [(0, mean), (1, mean**2 + std**2), (0, mean**3 + 3 * mean * std**2)]
    expected = sum(math.comb(3, j + 1) * (x - y) ** 2 for j, (x, y) in enumerate(moments))
    found = kernel_distance(
        normal(20_000, 1), normal(20_000, 1, 1, mean, std), subsets=40, size=500
    )
    assert abs(found.mean - expected) < 4 * found.std / np.sqrt(40)
    assert found.std < expected


def test_kernel_distance_is_unbiased_on_equal_distributions():
    found = kernel_distance(normal(2000, 8), normal(2000, 8, seed=1), subsets=50, size=50)
    assert abs(found.mean) < 4 * found.std / np.sqrt(50)
    other = kernel_distance(normal(2000, 8), normal(2000, 8, 1, mean=1.0), subsets=50, size=50)
    assert other.mean > 10 * found.std


def test_kernel_distance_of_whole_sets_is_the_mmd_and_the_seed_repeats():
    a, b = normal(30, 4), normal(30, 4, seed=1)
    whole = kernel_distance(a, b, subsets=1, size=30)
    np.testing.assert_allclose(whole.mean, mmd_squared(a, b), rtol=1e-12)
    assert math.isnan(whole.std)
    some = [kernel_distance(a, b, subsets=3, size=10, seed=seed) for seed in (0, 0, 1)]
    assert some[0] == some[1] != some[2]


def test_kernel_distance_of_non_finite_features_is_nan():
    a = normal(10, 3)
    a[2, 1] = np.inf
    assert math.isnan(mmd_squared(a, normal(10, 3)))


def test_kernel_distance_refuses_what_cannot_be():
    with pytest.raises(ValueError, match='sets of 30 and 20 features; each needs at least 25'):
        kernel_distance(normal(30, 3), normal(20, 3), size=25)
    with pytest.raises(ValueError, match='5 subsets of 1 features'):
        kernel_distance(normal(30, 3), normal(20, 3), subsets=5, size=1)
    with pytest.raises(ValueError, match=r'shapes \(30, 3\) and \(20, 2\)'):
        mmd_squared(normal(30, 3), normal(20, 2))
