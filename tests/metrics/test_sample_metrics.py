"""Kernel distance, inception score, precision and recall, density and coverage."""

import math

import numpy as np
import pytest

from cm_jax.errors import UserError
from cm_jax.metrics import named
from cm_jax.metrics import precision_recall as pr
from cm_jax.metrics.inception_score import inception_score
from cm_jax.metrics.kernel import kernel_distance, mmd_squared
from cm_jax.metrics.precision_recall import density_coverage, precision_recall
from cm_jax.types import Extractor


def normal(n, d, seed=0, mean=0.0, std=1.0):
    return mean + std * np.random.default_rng(seed).normal(size=(n, d))


# Kernel distance


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


# Inception score


@pytest.mark.parametrize('classes', [2, 10])
def test_inception_score_at_its_ends(classes):
    sure = 1000 * np.tile(np.eye(classes), (20, 1))
    np.testing.assert_allclose(inception_score(sure, splits=4), (classes, 0), rtol=1e-12, atol=1e-9)
    alike = np.tile(normal(1, classes), (50, 1))
    np.testing.assert_allclose(inception_score(alike), (1, 0), rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(inception_score(1000 * alike), (1, 0), rtol=1e-12, atol=1e-9)


def test_inception_score_of_two_kinds_in_closed_form():
    """Probabilities (q, 1-q) and (1-q, q): exp(log 2 - entropy of q)."""
    q = 0.8
    logits = np.tile(np.log([[q, 1 - q], [1 - q, q]]), (10, 1))
    expected = 2 * math.exp(q * math.log(q) + (1 - q) * math.log(1 - q))
    np.testing.assert_allclose(inception_score(logits, splits=2)[0], expected, rtol=1e-12)


def test_inception_score_splits_in_order_and_ignores_a_shift():
    logits = normal(23, 6, std=2)
    parts = [inception_score(p, 1)[0] for p in (logits[:7], logits[7:15], logits[15:])]
    np.testing.assert_allclose(inception_score(logits, 3), (np.mean(parts), np.std(parts)))
    shifted = logits + normal(23, 1, seed=1)
    np.testing.assert_allclose(inception_score(shifted, 3), inception_score(logits, 3))


def test_inception_score_refuses_and_tells_nan():
    assert np.isnan(inception_score(np.array([[0, np.nan], [0, 1]]), 1)).all()
    with pytest.raises(ValueError, match='10 splits of 4 samples; legal: 1 to 4'):
        inception_score(normal(4, 3))
    with pytest.raises(ValueError, match=r'shape \(4,\)'):
        inception_score(np.zeros(4), 1)


# Precision and recall, density and coverage


def numpy_distances(x, y):
    return np.sqrt(((x[:, None] - y[None]) ** 2).sum(-1))


def numpy_scores(real, samples, k):
    """The four scores, by the definitions, in float64."""

    def radius(x):
        return np.sort(numpy_distances(x, x), axis=1)[:, k]  # 0 is the distance to itself

    between, r_real, r_samples = numpy_distances(real, samples), radius(real), radius(samples)
    closed, inside = between <= r_real[:, None], between < r_real[:, None]
    recall = (between <= r_samples[None]).any(1).mean()
    return closed.any(0).mean(), recall, inside.sum(0).mean() / k, inside.any(1).mean()


def scores(real, samples, k, block):
    return (*precision_recall(real, samples, k, block), *density_coverage(real, samples, k, block))


@pytest.mark.parametrize('k, block', [(1, 8), (3, 8), (5, 64)])
@pytest.mark.parametrize('mean, std', [(0.0, 1.0), (0.8, 0.6), (1000.0, 1.0)])
def test_scores_are_those_of_numpy(k, block, mean, std):
    real, samples = normal(37, 6, mean=mean > 10 and mean), normal(29, 6, 1, mean, std)
    found, wanted = scores(real, samples, k, block), numpy_scores(real, samples, k)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    assert 0 < found[0] < 1 or k > 1


def test_a_set_against_itself():
    """Each ball has its centre and k - 1 others inside."""
    x = normal(33, 5)
    np.testing.assert_allclose(scores(x, x, 4, 8), 1, rtol=1e-6)


def test_few_real_images_as_samples_are_precise_and_recall_little():
    real = normal(60, 4)
    near = np.argsort(numpy_distances(real, real)[0])[:6]
    precision, recall, density, coverage = scores(real, real[near], 3, 16)
    assert precision == 1 and density > 0.5
    assert recall < 0.6 and coverage < 0.6


def test_one_image_many_times_covers_nothing():
    real = normal(40, 4)
    precision, recall, density, coverage = scores(real, np.tile(real[:1] + 0.01, (10, 1)), 3, 16)
    assert precision == 1 and recall == 0 and coverage < 0.3 < density
    far = scores(real, np.tile(real[:1] + 99, (10, 1)), 3, 16)
    assert far == (0, 0, 0, 0)


def test_equal_points_have_no_radius():
    x = np.repeat(normal(5, 2048, mean=3.0), 4, axis=0)
    np.testing.assert_array_equal(pr.radii(x.astype(np.float32), 3, 8), 0)
    assert (pr.radii(x.astype(np.float32), 4, 8) > 1).all()


def test_points_on_a_line():
    """0, 1, 2, ... 9 with k = 1: balls of radius 1; a sample at 9.5 is in one, at 4.5 in two."""
    real = np.arange(10.0)[:, None]
    samples = np.array([[4.5], [9.5], [10.5], [30.0]])
    assert precision_recall(real, samples, k=1).precision == 0.5
    density, coverage = density_coverage(real, samples, k=1)
    assert (density, coverage) == (3 / 4, 3 / 10)
    edge = np.array([[10.0], [10.0]])  # on the edge of one ball
    assert precision_recall(real, edge, k=1).precision == 1
    assert density_coverage(real, edge, k=1).density == 0


def test_non_finite_features_are_nan():
    x = normal(10, 3)
    x[3, 1] = np.nan
    assert np.isnan(scores(normal(10, 3), x, 2, 8)).all()


def test_too_few_neighbours_are_refused():
    with pytest.raises(ValueError, match='k = 3 nearest neighbours among 20 and 3 features'):
        precision_recall(normal(20, 2), normal(3, 2))
    with pytest.raises(ValueError, match='k = 5 nearest neighbours among 5 and 9 features'):
        density_coverage(normal(5, 2), normal(9, 2))
    with pytest.raises(ValueError, match=r'shapes \(9, 2\) and \(9, 3\)'):
        precision_recall(normal(9, 2), normal(9, 3))


# By name


def extractor(score):
    """Features of 3 numbers, whose first two are logits."""
    return Extractor('made_up', score, 3, None, {}, lambda params, found: found[:, :2], 'abc')


def test_only_the_inceptions_have_the_short_names():
    assert list(named.names(extractor('fid'))) == ['fid', 'kid', 'is', 'pr']
    lenet = extractor('fd_lenet')
    assert list(named.names(lenet)) == ['fd_lenet', 'kd_lenet', 'is_lenet', 'pr_lenet']
    assert named.keys(lenet, ['pr_lenet', 'fd_lenet', 'kd_lenet', 'kd_lenet']) == [
        *('precision_lenet', 'recall_lenet', 'density_lenet', 'coverage_lenet', 'kd_lenet')
    ]
    assert named.beyond(extractor('fid'), ['fid']) == []


def test_measure_is_the_metrics_with_the_settings_told():
    real, samples = (normal(*a).astype(np.float32) for a in ((60, 3), (40, 3, 1, 0.3)))
    found = named.measure(extractor('fid'), ['fid', 'pr', 'is', 'kid'], real, samples)
    told = named.settings(extractor('fid'), ['fid', 'pr', 'is', 'kid'], 40, 60)
    assert told['kid'] == {'subsets': 100, 'size': 40, 'seed': 0, 'reference': 60}
    assert told['pr']['reference'] == 60 and told['is'] == {'splits': 10} and 'fid' not in told
    wanted = {
        'kid': kernel_distance(real, samples, subsets=100, size=40, seed=0).mean,
        'is': inception_score(samples[:, :2], 10).mean,
        **precision_recall(real, samples, 3)._asdict(),
        **density_coverage(real, samples, 5)._asdict(),
    }
    assert found == pytest.approx(wanted) and found.keys() == wanted.keys()


def test_unknown_metrics_and_few_samples_are_refused():
    with pytest.raises(UserError, match=r"extractor made_up 'fd' \(did you mean 'fid'"):
        named.check(extractor('fid'), ['fd'], 100, 100)
    with pytest.raises(UserError, match='at least 10 samples and reference images, got 100 and 9'):
        named.check(extractor('fid'), ['fid', 'is'], 100, 9)
    named.check(extractor('fid'), ['fid'], 2, 9)
