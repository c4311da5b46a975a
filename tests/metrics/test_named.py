"""Metrics by name, and the settings that are told with them."""

import numpy as np
import pytest

from cm_jax.errors import UserError
from cm_jax.metrics import named
from cm_jax.metrics.inception_score import inception_score
from cm_jax.metrics.kernel import kernel_distance
from cm_jax.metrics.precision_recall import RealFeatures, density_coverage, precision_recall
from cm_jax.types import Extractor


def normal(n, d, seed=0, mean=0.0, std=1.0):
    return mean + std * np.random.default_rng(seed).normal(size=(n, d))


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
    found = named.measure(extractor('fid'), ['fid', 'pr', 'is', 'kid'], RealFeatures(real), samples)
    told = named.settings(extractor('fid'), ['fid', 'pr', 'is', 'kid'], 40, 60)
    assert told['kid'] == {'subsets': 100, 'size': 40, 'seed': 0, 'reference': 60}
    assert told['pr']['reference'] == 60 and told['is'] == {'splits': 10} and 'fid' not in told
    wanted = {
        'kid': kernel_distance(real, samples, subsets=100, size=40, seed=0).mean,
        'is': inception_score(samples[:, :2], 10).mean,
        **precision_recall(RealFeatures(real), samples, 3)._asdict(),
        **density_coverage(RealFeatures(real), samples, 5)._asdict(),
    }
    assert found == pytest.approx(wanted) and found.keys() == wanted.keys()


def test_unknown_metrics_and_few_samples_are_refused():
    with pytest.raises(UserError, match=r"extractor made_up 'fd' \(did you mean 'fid'"):
        named.check(extractor('fid'), ['fd'], 100, 100)
    with pytest.raises(UserError, match='at least 10 samples and reference images, got 100 and 9'):
        named.check(extractor('fid'), ['fid', 'is'], 100, 9)
    named.check(extractor('fid'), ['fid'], 2, 9)
