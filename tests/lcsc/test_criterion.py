"""The metric that a search optimises is that of evaluate, turned so that less is better."""

import numpy as np
import pytest

from cm_jax import data, samplers, sharding
from cm_jax.core import process as processes
from cm_jax.errors import UserError
from cm_jax.evaluation import scores
from cm_jax.lcsc import combine, criterion, storage
from cm_jax.lcsc.fitness import make_values
from cm_jax.metrics import named
from cm_jax.models import lenet, pixels
from cm_jax.samplers import GenerativeModel
from tests.helpers.small_search import (
    COEFFICIENTS,
    COUNT,
    small_denoise,
    small_fitness,
    small_snapshots,
)


@pytest.fixture(scope='module')
def rows():
    """What evaluate finds of each of COEFFICIENTS' networks, by all metrics."""
    networks, extractor = small_snapshots(), lenet.extractor('lenet_digits')
    process = processes.variance_exploding()
    names = list(named.names(extractor))
    reference = scores.reference(data.open_source('digits', 'test'), extractor, 500, True)
    scorer = scores.Scorer(
        GenerativeModel(small_denoise, process, (8, 8, 1), 10),
        [scores.FeatureSpace(extractor, reference, tuple(names))],
        20,
        sharding.make_mesh(),
    )
    settings = {'ema': '', 'step': 0}
    load = lambda k: networks[k]  # noqa: E731
    models = [combine.combine(load, range(COUNT), c) for c in COEFFICIENTS[:3]]
    return [scorer.score(m, 'multistep@80,1', 40, (1,), **settings) for m in models]


@pytest.mark.parametrize(
    'wanted',
    [
        {'fd_lenet': 1.0},
        {'kd_lenet': 1.0},
        {'fd_lenet': 1.0, 'kd_lenet': 100.0},
        {'fd_lenet': 0.5, 'is_lenet': 3.0, 'recall_lenet': 10.0},
    ],
)
def test_a_metric_is_that_of_evaluate_and_higher_is_better_is_negated(wanted, rows):
    found = small_fitness(wanted=wanted, keep=True)[0](COEFFICIENTS[:3], 1)
    signs = {'is_lenet': -1, 'recall_lenet': -1}
    expected = [sum(w * signs.get(n, 1) * row[n] for n, w in wanted.items()) for row in rows]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_a_broken_candidate_scores_nan_by_its_features_too():
    population = np.array([[np.nan, 0, 0, 0, 1], COEFFICIENTS[0]])
    found = small_fitness(wanted={'kd_lenet': 1.0, 'fd_lenet': 1.0}, keep=True)[0](population, 1)
    assert np.isnan(found[0]) and np.isfinite(found[1])


def test_wrong_metrics_are_refused():
    for wanted, words in (
        ({'fid': 1.0}, "unknown metric of a search .*'fid'"),
        ({'fd_lenet': -1.0}, 'must be > 0, got -1'),
        ({'kd_lenet': float('nan')}, 'must be > 0, got nan'),
        ({}, 'no metric; legal: .*density_lenet, fd_lenet, is_lenet, kd_lenet'),
    ):
        with pytest.raises(UserError, match=words):
            small_fitness(wanted=wanted)
    with pytest.raises(ValueError, match='need the features of the reference'):
        small_fitness(wanted={'kd_lenet': 1.0})
    assert criterion.sources({'fd_a': 1, 'recall_a': 1, 'precision_a': 1}) == ['fd_a', 'pr_a']


def test_metrics_of_several_spaces_are_measured_in_one_set_of_samples():
    """With weights, and with units; the spaces that no metric names are left out."""
    source = data.open_source('digits', 'test')
    names = ('lenet_digits', 'lenet_fashion_mnist')
    extractors = [lenet.extractor(names[0]), lenet.extractor(names[1])._replace(score='fd_other')]
    extractors.append(pixels.extractor('pixel'))
    opened = [scores.FeatureSpace(e, scores.reference(source, e, 500, True)) for e in extractors]
    networks, process = small_snapshots(), processes.variance_exploding()
    placed = storage.place(storage.store(lambda k: networks[k], range(COUNT)), sharding.make_mesh())
    model = GenerativeModel(small_denoise, process, (8, 8, 1), 10)
    sampler = samplers.build('multistep@80,1', process)

    def values(metric):
        built = criterion.build(opened, metric, 40)
        made = make_values(model, sampler, built, placed, samples=40, batch_size=20)
        return built, made(COEFFICIENTS[:3], 1)

    built, found = values({'fd_pixel': 2.0, 'fd_lenet': 0.5, 'is_lenet': 3.0})
    assert built.names == ['fd_lenet', 'is_lenet', 'fd_pixel']
    for i, name in enumerate(built.names):
        np.testing.assert_allclose(found[:, i], values({name: 1.0})[1][:, 0], rtol=1e-4)
    lenet_fd, inception, pixel_fd = found.T
    given = built.score(found, np.ones(3))
    np.testing.assert_allclose(given, 0.5 * lenet_fd + 2 * pixel_fd - 3 * inception, rtol=1e-12)
    units = built.units(np.concatenate([found, np.full((1, 3), np.nan)]))
    np.testing.assert_allclose(units, [lenet_fd.min(), inception.max(), pixel_fd.min()])
    relative = 0.5 * lenet_fd / units[0] - 3 * inception / units[1] + 2 * pixel_fd / units[2]
    np.testing.assert_allclose(built.score(found, units), relative, rtol=1e-12)
    with pytest.raises(UserError, match='no profile has a finite fd_lenet other than 0'):
        built.units(np.full((2, 3), np.nan))
    with pytest.raises(UserError, match=r"'fd_moon'.*legal: .*fd_other, fd_pixel"):
        values({'fd_moon': 1.0})
