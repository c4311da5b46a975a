"""Scores: of exactly as many samples as asked, the same whatever the batch, labels as asked."""

import jax
import numpy as np
import pytest

from cm_jax import data, generate, samplers, sharding
from cm_jax.errors import UserError
from cm_jax.evaluation import scores
from cm_jax.metrics import features, moments
from cm_jax.metrics.frechet import frechet
from cm_jax.models import lenet, pixels
from tests.helpers.formula_model import GENERATIVE_MODEL, SHAPE, VE


@pytest.fixture(scope='module')
def extractor():
    return lenet.extractor('lenet_digits')


@pytest.fixture(scope='module')
def reference(extractor):
    return scores.reference(data.open_source('digits', 'train'), extractor, 500)


def score(extractor, reference, samples, batch_size, labels='balanced', rule='round', **more):
    mesh = sharding.make_mesh()
    space = scores.FeatureSpace(extractor, reference)
    scorer = scores.Scorer(GENERATIVE_MODEL, [space], batch_size, mesh, labels, rule)
    return scorer.score(np.float32(0.9), 'onestep', samples, (3,), ema='', step=0, **more)


def test_5003_samples_at_batch_64_are_5003_samples(extractor, reference):
    """And the score is that at another batch size, and by hand."""
    seen = []
    save = lambda seed, first, images: seen.append((seed, first, images))  # noqa: E731
    row = score(extractor, reference, 5003, 64, save=save)
    assert row['protocol']['samples'] == 5003 and row['protocol']['score'] == 'fd_lenet_5003'
    assert [first for _, first, _ in seen] == list(range(0, 5003, 64))
    images = np.concatenate([images for *_, images in seen])
    assert images.shape == (5003, *SHAPE) and images.dtype == np.uint8
    found = moments.of(
        np.asarray(jax.jit(extractor.apply)(extractor.params, data.to_float(images)))
    )
    by_hand = frechet(found, reference.moments)
    np.testing.assert_allclose(row['fd_lenet'], by_hand.distance, rtol=1e-6)
    np.testing.assert_allclose(row['condition'], by_hand.condition, rtol=0.1)
    assert row['rank'] == by_hand.rank > 60  # of 84, some of which are always 0
    other = score(extractor, reference, 5003, 1000)
    np.testing.assert_allclose(other['fd_lenet'], row['fd_lenet'], rtol=1e-6)
    assert other['protocol'] == row['protocol']


def test_truncated_samples_are_scored_as_they_are_stored(extractor, reference):
    """And never taken for rounded ones."""
    seen = []
    save = lambda seed, first, images: seen.append(images)  # noqa: E731
    rows = [
        score(extractor, reference, 200, 100, rule=rule, save=save) for rule in features.ROUNDING
    ]
    rounded, truncated = np.concatenate(seen[:2]), np.concatenate(seen[2:])
    assert set(np.unique(rounded.astype(int) - truncated)) == {0, 1}
    extract = jax.jit(extractor.apply)
    for row, images in zip(rows, (rounded, truncated)):
        found = moments.of(np.asarray(extract(extractor.params, data.to_float(images))))
        by_hand = frechet(found, reference.moments).distance
        np.testing.assert_allclose(row['fd_lenet'], by_hand, rtol=1e-5)
    protocols = [row['protocol'] for row in rows]
    assert [protocol['rounding'] for protocol in protocols] == list(features.ROUNDING.values())
    assert protocols[0]['id'] != protocols[1]['id']


def test_fewer_samples_than_features_are_told(extractor, reference):
    row = score(extractor, reference, 40, 16)
    assert row['protocol']['rank_deficient'] and 10 < row['rank'] <= 39
    assert not score(extractor, reference, 85, 85)['protocol']['rank_deficient']


def test_the_noise_is_that_of_balanced_labels(extractor, reference):
    """Only the classes differ, and the protocols say so."""
    generative_model = GENERATIVE_MODEL._replace(
        denoise=lambda params, x, t, label, key=None: x / 80
    )
    sampler, mesh = samplers.build('onestep', VE), sharding.make_mesh()
    found = [
        generate.make_generator(
            generative_model, sampler, mesh, 5, features.to_bytes, labels=labels
        )(np.float32(1), 3, 0)
        for labels in generate.LABELS
    ]
    np.testing.assert_array_equal(*found)
    rows = [score(extractor, reference, 100, 50, labels) for labels in generate.LABELS]
    told = [row['protocol']['labels'] for row in rows]
    assert told == ['index modulo 10', 'uniform over 10']
    assert rows[0]['protocol']['id'] != rows[1]['protocol']['id']
    assert rows[0]['fd_lenet'] != rows[1]['fd_lenet']


def test_labels_that_cannot_be_are_refused(extractor, reference):
    with pytest.raises(UserError, match=r"unknown labels 'even'; legal: balanced, uniform"):
        score(extractor, reference, 10, 5, 'even')
    with pytest.raises(UserError, match="labels 'uniform': the network has no classes"):
        generate.labels_policy(GENERATIVE_MODEL._replace(num_classes=0), 'uniform')
    assert generate.labels_policy(GENERATIVE_MODEL._replace(num_classes=0)) == 'none'


def test_an_extractor_without_weights_scores_as_any_other():
    extractor, mesh = pixels.extractor('pixel'), sharding.make_mesh()
    reference = scores.reference(data.open_source('digits', 'train'), extractor, 500, keep=True)
    space, images = scores.FeatureSpace(extractor, reference, ('kd_pixel', 'pr_pixel')), []
    scorer = scores.Scorer(GENERATIVE_MODEL, [space], 40, mesh)
    save = lambda seed, first, made: images.append(made)  # noqa: E731
    row = scorer.score(np.float32(0.9), 'onestep', 100, (3,), ema='', step=0, save=save)
    assert row['protocol']['score'] == 'fd_pixel_100'
    identity = {'name': 'pixel', 'checksum': extractor.checksum, 'resize': extractor.resize}
    assert row['protocol']['extractor'] == identity
    found = np.asarray(data.to_float(np.concatenate(images))).reshape(100, 64)
    by_hand = frechet(moments.of(found), reference.moments).distance
    np.testing.assert_allclose(row['fd_pixel'], by_hand, rtol=1e-5)
    assert np.isfinite([row['kd_pixel'], row['precision_pixel'], row['coverage_pixel']]).all()


def test_other_spaces_measure_the_same_samples(extractor, reference):
    """Each as if it were alone; and what concerns it is stored by the name of its distance."""
    mesh, pixel = sharding.make_mesh(), pixels.extractor('pixel')
    source = data.open_source('digits', 'train')
    other = scores.FeatureSpace(pixel, scores.reference(source, pixel, 500, True), ('pr_pixel',))
    first = scores.FeatureSpace(extractor, reference)

    def row(*spaces):
        scorer = scores.Scorer(GENERATIVE_MODEL, spaces, 40, mesh)
        return scorer.score(np.float32(0.9), 'onestep', 100, (3, 4), ema='', step=0)

    both, *alone = row(first, other), row(first), row(other)
    details = both.pop('others')['fd_pixel']
    assert alone[0] == {key: both[key] for key in alone[0]}
    for key, value in alone[1].items():
        found = details[key] if key in details else both[key]
        assert found == value, key
    assert details['protocol']['score'] == 'fd_pixel_100'
    assert {'precision_pixel', 'recall_pixel', 'fd_pixel', 'fd_pixel_std'} <= both.keys()
