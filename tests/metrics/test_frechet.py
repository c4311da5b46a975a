"""The Fréchet distance: closed forms, singular covariances, its condition and rank."""

import dataclasses

import numpy as np
import pytest
import scipy.linalg

from cm_jax.metrics import moments as mo
from cm_jax.metrics.frechet import distances_to, frechet, frechet_distance
from tests.helpers.moments import gaussian, random_covariance


def rotation(d, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0]


def test_frechet_of_diagonal_gaussians():
    rng = np.random.default_rng(0)
    mean_a, mean_b = rng.normal(size=(2, 20))
    std_a, std_b = rng.uniform(0.1, 3, size=(2, 20))
    expected = np.sum((mean_a - mean_b) ** 2) + np.sum((std_a - std_b) ** 2)
    found = frechet_distance(
        gaussian(mean_a, np.diag(std_a**2)), gaussian(mean_b, np.diag(std_b**2))
    )
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize('zeros', [0, 5, 19])
def test_frechet_of_rotated_and_singular_gaussians(zeros):
    """Commuting covariances: sum (std_a - std_b)^2 whatever the common basis, zeros included."""
    rng = np.random.default_rng(1)
    std_a, std_b = rng.uniform(0.1, 3, size=(2, 20))
    std_a[:zeros] = 0
    std_b[20 - zeros :] = 0
    q = rotation(20)
    a, b = (gaussian(np.zeros(20), q @ np.diag(std**2) @ q.T) for std in (std_a, std_b))
    np.testing.assert_allclose(frechet_distance(a, b), np.sum((std_a - std_b) ** 2), rtol=1e-6)


def test_frechet_of_two_by_two():
    """tr (A B)^{1/2} of 2x2 matrices is sqrt(tr AB + 2 sqrt(det AB)); no common basis here."""
    a, b = np.array([[2.0, 0.7], [0.7, 1.0]]), np.array([[0.5, -0.4], [-0.4, 3.0]])
    overlap = np.sqrt(np.trace(a @ b) + 2 * np.sqrt(np.linalg.det(a @ b)))
    expected = 1 + np.trace(a) + np.trace(b) - 2 * overlap
    found = frechet_distance(gaussian([0, 0], a), gaussian([1, 0], b))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_frechet_to_a_point_is_mean_square_distance():
    point = gaussian(np.zeros(8), np.zeros((8, 8)))
    cloud = gaussian(np.full(8, 2.0), random_covariance(8, 0))
    expected = 32 + np.trace(mo.covariance(cloud))
    np.testing.assert_allclose(frechet_distance(point, cloud), expected, rtol=1e-12)
    assert frechet_distance(point, point) == 0


@pytest.mark.parametrize('d', [3, 84])
def test_frechet_agrees_with_sqrtm(d):
    a, b = random_covariance(d, 0), random_covariance(d, 1)
    expected = np.trace(a) + np.trace(b) - 2 * np.trace(scipy.linalg.sqrtm(a @ b).real)
    found = frechet_distance(gaussian(np.zeros(d), a), gaussian(np.zeros(d), b))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize('rank', [5, 30, 90])
def test_frechet_is_symmetric_and_zero_on_itself(rank):
    a = gaussian(np.ones(30), random_covariance(30, 0, rank))
    b = gaussian(np.zeros(30), random_covariance(30, 1))
    assert frechet_distance(a, b) == frechet_distance(b, a) > 1
    assert 0 <= frechet_distance(a, a) < 1e-6 * np.trace(mo.covariance(a))


def test_distance_to_is_the_distance_whichever_has_fewer_samples():
    rng = np.random.default_rng(0)
    few, many = (mo.of(rng.standard_normal((n, 6)) + 0.1 * n) for n in (4, 40))
    for a, b in ((few, many), (many, few)):
        to_a = distances_to(a).distance
        np.testing.assert_allclose(to_a(b), frechet_distance(a, b), rtol=1e-9)
        assert np.isnan(to_a(dataclasses.replace(b, mean=np.full(6, np.nan))))


def test_frechet_of_scaled_gaussian_is_exact_with_fewer_samples_than_dimensions():
    """W2 of X and cX is (c - 1)^2 E|X|^2; 10 samples in 40 dimensions."""
    x = np.random.default_rng(0).normal(size=(10, 40))
    a, b = mo.of(x), mo.of(3 * x)
    expected = 4 * (np.trace(mo.covariance(a)) + np.sum(a.mean**2))
    np.testing.assert_allclose(frechet_distance(a, b), expected, rtol=1e-9)
    assert mo.rank_deficient(a)


@pytest.mark.parametrize('zeros', [0, 3])
def test_condition_and_rank_are_those_of_the_product(zeros):
    """The eigenvalues of C_a C_b are l_a l_b in a common basis; the order of a and b is nothing."""
    rng = np.random.default_rng(2)
    a, b = rng.uniform(0.1, 3, size=(2, 12))
    a[:zeros] = 0
    q = rotation(12)
    pair = [gaussian(np.zeros(12), q @ np.diag(values) @ q.T) for values in (a, b)]
    known = (a * b)[zeros:]
    for found in (frechet(*pair), frechet(*pair[::-1])):
        np.testing.assert_allclose(found.condition, known.max() / known.min(), rtol=1e-9)
        assert found.rank == 12 - zeros and found.distance == frechet_distance(*pair)


def test_condition_of_what_has_no_eigenvalue_is_nan():
    point = gaussian(np.zeros(3), np.zeros((3, 3)))
    assert frechet(point, point).rank == 0 and np.isnan(frechet(point, point).condition)


def test_rank_of_few_samples_is_one_less():
    x, y = (np.random.default_rng(seed).normal(size=(n, 40)) for seed, n in enumerate((10, 500)))
    found = frechet(mo.of(x), mo.of(y))
    assert found.rank == 9 and np.isfinite(found.condition)


@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_frechet_of_non_finite_features_is_nan(bad):
    x = np.random.default_rng(0).normal(size=(50, 4))
    good = mo.of(x)
    x[7, 2] = bad
    with np.errstate(invalid='ignore'):
        broken = mo.of(x)
    assert np.isnan(frechet_distance(broken, good))
    assert np.isnan(frechet_distance(good, broken))


def test_frechet_refuses_what_has_no_covariance():
    one = mo.of(np.zeros((1, 3)))
    with pytest.raises(ValueError, match='at least 2 samples, not 1'):
        frechet_distance(one, one)
    with pytest.raises(ValueError, match='features of 3 and of 4'):
        frechet_distance(gaussian(np.zeros(3), np.eye(3)), gaussian(np.zeros(4), np.eye(4)))


@pytest.mark.slow
def test_frechet_agrees_with_sqrtm_at_inceptions_size():
    d = 2048
    a, b = (random_covariance(d, seed) for seed in (0, 1))
    expected = np.trace(a) + np.trace(b) - 2 * np.trace(scipy.linalg.sqrtm(a @ b).real)
    found = frechet(gaussian(np.zeros(d), a), gaussian(np.zeros(d), b))
    np.testing.assert_allclose(found.distance, expected, rtol=1e-6)
    assert found.rank == d and 1 < found.condition < 1e9


def test_the_slope_is_the_closed_form_of_gaussians():
    """d/dC_b = I - T, where T = C_a^1/2 (C_a^1/2 C_b C_a^1/2)^-1/2 C_a^1/2 takes b to a."""
    d = 8
    cov_a, cov_b = random_covariance(d, 0), random_covariance(d, 1)
    mean_a, mean_b = np.random.default_rng(2).normal(size=(2, d))
    a, b = gaussian(mean_a, cov_a), gaussian(mean_b, cov_b)
    slope = distances_to(a).slope(b)
    root = scipy.linalg.sqrtm(cov_a).real
    inner = scipy.linalg.inv(scipy.linalg.sqrtm(root @ cov_b @ root).real)
    transport = root @ inner @ root
    np.testing.assert_allclose(transport @ cov_b @ transport, cov_a, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(slope.covariance, np.eye(d) - transport, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(slope.mean, 2 * (mean_b - mean_a), rtol=1e-12)
    np.testing.assert_allclose(slope.distance, frechet_distance(a, b), rtol=1e-9)


@pytest.mark.parametrize('zeros', [0, 3, 7])
def test_the_slope_of_singular_covariances_is_that_of_their_eigenvalues(zeros):
    """In a common basis d/dl_b = 1 - (l_a / l_b)^1/2, and 1 where a has no variance."""
    turn, random = rotation(8), np.random.default_rng(0)
    of_a, of_b = random.uniform(0.5, 2, size=(2, 8))
    of_a[:zeros] = 0
    a, b = (gaussian(np.zeros(8), (turn * values) @ turn.T) for values in (of_a, of_b))
    slope = distances_to(a).slope(b)
    np.testing.assert_allclose(
        turn.T @ slope.covariance @ turn, np.diag(1 - np.sqrt(of_a / of_b)), atol=1e-9
    )


def test_the_slope_of_fewer_samples_than_dimensions_is_that_of_the_nuclear_norm():
    """tr (C_a C_b)^1/2 is the sum of the singular values of C_a^1/2 X^T / (n - 1)^1/2."""
    random = np.random.default_rng(0)
    cov_a, x, along = random_covariance(12, 0), *random.normal(size=(2, 6, 12))
    root = scipy.linalg.sqrtm(cov_a).real

    def distance(x):
        centred = x - x.mean(0)
        singular = np.linalg.svd(root @ centred.T, compute_uv=False) / np.sqrt(5)
        return np.sum(x.mean(0) ** 2) + np.sum(centred**2) / 5 - 2 * singular.sum()

    b = mo.of(x)
    slope = distances_to(gaussian(np.zeros(12), cov_a)).slope(b)
    by_sum, by_outer = mo.centred_sums_cotangents(6, x.sum(0), slope.mean, slope.covariance)
    found = np.sum((by_sum[None] + 2 * x @ by_outer) * along)
    expected = (distance(x + 1e-5 * along) - distance(x - 1e-5 * along)) / 2e-5
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_slope_of_moments_that_are_not_finite_is_nan():
    a = gaussian(np.zeros(3), np.eye(3))
    slope = distances_to(a).slope(dataclasses.replace(a, mean=np.full(3, np.inf)))
    assert (
        np.isnan(slope.distance) and np.isnan(slope.mean).all() and np.isnan(slope.covariance).all()
    )
