"""Metrics: closed forms of the Fréchet distance, streamed moments, rounding, the protocol."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from cm_jax.data import to_float
from cm_jax.metrics import moments as mo
from cm_jax.metrics.features import round_uint8
from cm_jax.metrics.frechet import distance_to, frechet, frechet_distance
from cm_jax.metrics.moments import Moments
from cm_jax.metrics.protocol import protocol, reference_id, score_name
from cm_jax.types import Extractor


@pytest.fixture(autouse=True)
def _strict():
    with jax.numpy_rank_promotion('raise'):
        yield


def gaussian(mean, covariance, count=1000):
    """Moments whose unbiased covariance is the one given."""
    covariance = np.asarray(covariance, np.float64)
    return Moments(count, np.asarray(mean, np.float64), covariance * (count - 1))


def rotation(d, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0]


def random_covariance(d, seed, rank=None):
    factor = np.random.default_rng(seed).normal(size=(d, rank or 3 * d))
    return factor @ factor.T / factor.shape[1]


def assert_moments_close(a, b, rtol):
    assert a.count == b.count
    np.testing.assert_allclose(a.mean, b.mean, rtol=rtol)
    scale = np.abs(b.scatter).max()
    np.testing.assert_allclose(a.scatter, b.scatter, rtol=rtol, atol=rtol * scale)


# Fréchet distance


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
        to_a = distance_to(a)
        np.testing.assert_allclose(to_a(b), frechet_distance(a, b), rtol=1e-9)
        assert np.isnan(to_a(b._replace(mean=np.full(6, np.nan))))


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


# Moments


def features(n=1000, d=12, mean=1e5):
    return np.random.default_rng(0).normal(size=(n, d)) @ random_covariance(d, 3) + mean


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


# Rounding


def test_rounding_keeps_every_byte_and_is_idempotent():
    levels = to_float(np.arange(256, dtype=np.uint8))
    np.testing.assert_allclose(jax.jit(round_uint8)(levels), levels, rtol=0, atol=2e-7)
    x = jax.random.uniform(jax.random.key(0), (4, 8, 8, 3), minval=-1.5, maxval=1.5)
    rounded = round_uint8(x)
    np.testing.assert_array_equal(round_uint8(rounded), rounded)
    byte = 127.5 * np.asarray(rounded, np.float64) + 127.5
    np.testing.assert_allclose(byte, np.round(byte), rtol=0, atol=2e-5)
    assert np.abs(rounded - np.clip(x, -1, 1)).max() <= 0.5 / 127.5 + 1e-6


def test_rounding_clips_and_keeps_nan():
    np.testing.assert_array_equal(round_uint8(jnp.array([-9.0, 9.0, np.nan])), [-1, 1, np.nan])


# Protocol


def record(samples=5000, **changes):
    extractor = Extractor('lenet_digits', 'fd_lenet', 12, None, {}, None, 'abc')
    settings = {
        'seeds': range(3),
        'reference': reference_id('digits', 'train', mo.of(features()), 'beef'),
        'sampler': 'onestep',
        'levels': np.array([80.0]),
        'evaluations': 1,
        'ema': 'raw',
        'step': 0,
        'labels': 'none',
        **changes,
    }
    return protocol(extractor, samples, **settings)


def test_protocol_names_what_is_done_to_images():
    assert record()['extractor'] == {'name': 'lenet_digits', 'checksum': 'abc', 'resize': 'none'}


def test_other_counts_are_other_names():
    extractor = Extractor('inception', 'fid', 2048, None, {}, None, 'abc')
    names = [score_name(extractor, count) for count in (10_000, 50_000)]
    assert names == ['fid_10k', 'fid_50k']


def test_protocol_is_json_and_its_name_carries_the_count():
    found = json.loads(json.dumps(record()))
    assert found['score'] == 'fd_lenet_5k'
    assert found['reference']['count'] == 1000
    assert not found['rank_deficient']
    extractor = Extractor('lenet_digits', 'fd_lenet', 84, None, {}, None, 'abc')
    assert score_name(extractor, 297) == 'fd_lenet_297'


def test_protocol_marks_rank_deficiency_on_either_side():
    assert record(samples=12)['rank_deficient']
    few = reference_id('digits', 'train', mo.of(features(n=12)), 'beef')
    assert record(reference=few)['rank_deficient']


def test_protocol_id_tells_what_is_comparable():
    assert record(step=7, ema='0.999', seeds=[9])['id'] == record()['id']
    other = reference_id('digits', 'test', mo.of(features()), 'beef')
    for changed in (record(reference=other), record(samples=4000), record(labels='uniform')):
        assert changed['id'] != record()['id']
    edited = reference_id('digits', 'train', mo.of(features()), 'feed')
    assert record(reference=edited)['id'] != record()['id']
    rounded = mo.of(features() + 1e-9)  # as another device would have them
    same = reference_id('digits', 'train', rounded, 'beef')
    assert record(reference=same)['id'] == record()['id']
