"""Precision and recall, density and coverage: against NumPy, and in cases that are plain."""

import numpy as np
import pytest

from cm_jax.metrics import precision_recall as pr
from cm_jax.metrics.precision_recall import RealFeatures, density_coverage, precision_recall


def normal(n, d, seed=0, mean=0.0, std=1.0):
    return mean + std * np.random.default_rng(seed).normal(size=(n, d))


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
    real = RealFeatures(real)
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


def test_the_radii_of_real_images_are_computed_once(monkeypatch):
    """For each k, whatever is compared with them; those of samples each time."""
    computed, radii = [], pr.radii
    monkeypatch.setattr(pr, 'radii', lambda x, *a: computed.append((len(x), a[0])) or radii(x, *a))
    real = RealFeatures(normal(40, 4))
    first = precision_recall(real, normal(30, 4, 1)), density_coverage(real, normal(30, 4, 1))
    assert first == (
        precision_recall(real, normal(30, 4, 1)),
        density_coverage(real, normal(30, 4, 1)),
    )
    assert sorted(computed) == [(30, 3), (30, 3), (40, 3), (40, 5)]


def test_equal_points_have_no_radius():
    x = np.repeat(normal(5, 2048, mean=3.0), 4, axis=0)
    np.testing.assert_array_equal(pr.radii(x.astype(np.float32), 3, 8), 0)
    assert (pr.radii(x.astype(np.float32), 4, 8) > 1).all()


def test_points_on_a_line():
    """0, 1, 2, ... 9 with k = 1: balls of radius 1; a sample at 9.5 is in one, at 4.5 in two."""
    real = RealFeatures(np.arange(10.0)[:, None])
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
        precision_recall(RealFeatures(normal(20, 2)), normal(3, 2))
    with pytest.raises(ValueError, match='k = 5 nearest neighbours among 5 and 9 features'):
        density_coverage(RealFeatures(normal(5, 2)), normal(9, 2))
    with pytest.raises(ValueError, match=r'shapes \(9, 2\) and \(9, 3\)'):
        precision_recall(RealFeatures(normal(9, 2)), normal(9, 3))
