"""Samples and scores: exactly as many as asked, the same whatever the batch, labels as asked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax import data, generate, samplers, sharding
from cm_jax.core import process as processes
from cm_jax.errors import UserError
from cm_jax.evaluation import scores
from cm_jax.metrics import features, moments
from cm_jax.metrics.frechet import frechet
from cm_jax.models import lenet
from cm_jax.samplers import GenerativeModel

VE = processes.variance_exploding()
SHAPE = (8, 8, 1)


def denoise(params, x, t, label, key=None):
    """A 'network' that is a formula: noise at t = 80 becomes pictures that depend on the class."""
    shift = 0 if label is None else (label[:, None, None, None] - 4.5) / 9
    return jnp.tanh(params * x / 40 + shift)


GENERATIVE_MODEL = GenerativeModel(denoise, VE, SHAPE, 10)


@pytest.fixture(scope='module')
def extractor():
    return lenet.extractor('lenet_digits')


@pytest.fixture(scope='module')
def reference(extractor):
    return scores.reference(data.open_source('digits', 'train'), extractor, 500)


def score(extractor, reference, samples, batch_size, labels='balanced', **more):
    mesh = sharding.make_mesh()
    scorer = scores.Scorer(GENERATIVE_MODEL, extractor, reference, batch_size, mesh, (), labels)
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


def test_fewer_samples_than_features_are_told(extractor, reference):
    row = score(extractor, reference, 40, 16)
    assert row['protocol']['rank_deficient'] and 10 < row['rank'] <= 39
    assert not score(extractor, reference, 85, 85)['protocol']['rank_deficient']


# Labels


def labels_of(policy, count=40, batch_size=7, spec='onestep', seed=3):
    """The classes that the denoiser is given."""

    def tell(params, x, t, label, key=None):
        shown = jnp.full(x.shape[:1], -1) if label is None else label
        return jnp.broadcast_to(shown[:, None, None, None], x.shape) * 1.0

    generative_model = GENERATIVE_MODEL._replace(denoise=tell)
    make = generate.make_generator(
        generative_model,
        samplers.build(spec, VE),
        sharding.make_mesh(),
        batch_size,
        lambda x0: x0[:, 0, 0, 0],
        labels=policy,
    )
    batches = [make(np.float32(1), seed, first) for first in range(0, count, batch_size)]
    return np.concatenate(batches)[:count]


def test_balanced_labels_go_round_and_uniform_ones_are_drawn_by_index():
    np.testing.assert_allclose(labels_of('balanced'), np.arange(40) % 10, atol=1e-4)
    drawn = np.round(labels_of('uniform', 3000, 1000)).astype(int)
    np.testing.assert_array_equal(np.round(labels_of('uniform')), drawn[:40])
    counts = np.bincount(drawn, minlength=10)
    assert len(counts) == 10 and len(set(counts)) > 3
    assert np.sum((counts - 300) ** 2 / 300) < 30  # chi-squared of 9 degrees of freedom
    other = np.round(labels_of('uniform', 3000, 1000, seed=4))
    assert 0.05 < np.mean(other == drawn) < 0.15


def test_guidance_still_has_no_label_where_it_takes_none():
    """D + (2 - 1) (D - none), of D = label and none = -1."""
    label = np.round(labels_of('uniform'))
    np.testing.assert_allclose(labels_of('uniform', spec='onestep+cfg2'), 2 * label + 1, atol=1e-3)


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


def test_bytes_are_what_the_features_see():
    x = jnp.linspace(-1.2, 1.2, 999)
    stored = np.asarray(features.to_bytes(x))
    assert stored.dtype == np.uint8 and stored.min() == 0 and stored.max() == 255
    np.testing.assert_allclose(data.to_float(stored), features.round_uint8(x), atol=2e-7)
    assert features.to_bytes(jnp.array([jnp.nan])) == 0
