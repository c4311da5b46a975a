"""Reference statistics: every image counts, files of ours, EDM's and ADM's, and what is refused."""

import dataclasses
import hashlib
import json

import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax import sharding
from cm_jax.core import process as processes
from cm_jax.data import Source
from cm_jax.errors import UserError
from cm_jax.evaluation import references, scores
from cm_jax.metrics import moments
from cm_jax.metrics.frechet import frechet_distance
from cm_jax.samplers import GenerativeModel
from cm_jax.settings import Evaluation
from cm_jax.types import Extractor
from cm_jax.wiring import open_reference

SHAPE = (4, 4, 3)


def apply(params, x):
    """Mean of each channel, and of the top row."""
    return jnp.concatenate([x.mean((1, 2)), x[:, 0].mean((1, 2))[:, None]], axis=1) * params


EXTRACTOR = Extractor('made_up', 'fd_made_up', 4, apply, np.float32(2), None, 'c0ffee', 'no resize')


def source(count=37, seed=0):
    images = np.random.default_rng(seed).integers(0, 256, (count, *SHAPE), np.uint8)
    labels = np.zeros(count, np.int32)
    return Source(
        name='made',
        split='train',
        count=count,
        image_shape=SHAPE,
        num_classes=0,
        get=lambda indices: (images[indices], labels[indices]),
    )


def numpy_features(images):
    x = images / 127.5 - 1
    return 2 * np.concatenate([x.mean((1, 2)), x[:, 0].mean((1, 2))[:, None]], axis=1)


@pytest.mark.parametrize('batch_size', [1, 8, 37, 64])
def test_every_image_counts_whatever_the_batch(batch_size):
    found = scores.reference(source(), EXTRACTOR, batch_size, keep=True)
    wanted = numpy_features(source().get(np.arange(37))[0])
    np.testing.assert_allclose(found.features, wanted, atol=1e-6)
    assert found.moments.count == found.id['count'] == 37 and found.image_shape == SHAPE
    images = source().get(np.arange(37))[0]
    assert found.id['checksum'] == hashlib.sha256(images.tobytes()).hexdigest()
    covariance = moments.covariance(found.moments)
    np.testing.assert_allclose(covariance, np.cov(wanted, rowvar=False), rtol=1e-5, atol=1e-7)


def test_a_reference_needs_two_images():
    with pytest.raises(UserError, match='made has 1 images; it needs at least 2'):
        scores.reference(source(1), EXTRACTOR, 8)


@pytest.fixture
def ours(tmp_path):
    """(path of a file of ours with features, the reference in it)."""
    found = scores.reference(source(), EXTRACTOR, 8, keep=True)
    references.save(tmp_path / 'ours.npz', found, EXTRACTOR)
    assert [path.name for path in tmp_path.iterdir()] == ['ours.npz']
    return tmp_path / 'ours.npz', found


def load(path, extractor=EXTRACTOR, keep=False):
    return references.load(str(path), extractor, 8, keep)


def test_a_file_of_ours_is_the_reference_itself(ours):
    path, found = ours
    back = load(path, keep=True)
    assert back.id == found.id and back.image_shape == SHAPE
    np.testing.assert_array_equal(back.features, found.features)
    np.testing.assert_allclose(back.moments.scatter, found.moments.scatter, rtol=1e-15)
    other = moments.of(numpy_features(source(50, 1).get(np.arange(50))[0]))
    distances = [frechet_distance(other, one.moments) for one in (found, back)]
    np.testing.assert_allclose(*distances, rtol=1e-12)
    assert load(path).features is None


def test_other_tools_read_mu_and_sigma(ours):
    path, _ = ours
    with np.load(path) as file:
        wanted = numpy_features(source().get(np.arange(37))[0])
        np.testing.assert_allclose(file['mu'], wanted.mean(0), atol=1e-6)
        np.testing.assert_allclose(file['sigma'], np.cov(wanted, rowvar=False), atol=1e-6)
        record = json.loads(str(file['record']))
    assert record['extractor'] == {'name': 'made_up', 'checksum': 'c0ffee', 'resize': 'no resize'}
    assert record['split'] == 'train' and record['count'] == 37


def refused(path, message, extractor=EXTRACTOR, keep=False):
    with pytest.raises(UserError, match=message) as raised:
        load(path, extractor, keep)
    assert '\n' not in str(raised.value)


def test_another_extractor_is_refused(ours):
    path, _ = ours
    for change, message in (
        ({'name': 'inception'}, "another extractor: name 'made_up' there, 'inception' here"),
        ({'checksum': 'beef'}, "checksum 'c0ffee' there, 'beef' here"),
        ({'resize': 'bilinear'}, "resize 'no resize' there, 'bilinear' here"),
        ({'name': 'other', 'dim': 5}, 'another extractor'),
    ):
        refused(path, message, EXTRACTOR._replace(**change))


def test_damage_and_a_lack_of_features_are_told(ours, tmp_path):
    path, _ = ours
    with np.load(path) as file:
        arrays = dict(file)
    features = arrays.pop('features')
    np.savez(path, **arrays)
    refused(path, r'ours.npz holds no features.*--features', keep=True)
    np.savez(path, **arrays | {'sigma': arrays['sigma'] * 1.001})
    refused(path, 'is damaged: its statistics have not the checksum')
    np.savez(path, **{k: v for k, v in arrays.items() if k != 'mu'})
    refused(path, 'lacks mu')
    np.savez(path, **arrays | {'record': np.array('{}')})
    refused(path, 'lacks extractor')
    np.savez(path, features=features)
    refused(path, 'no reference statistics mu and sigma: it holds features')
    np.savez(path, **arrays)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(path, 'is truncated or damaged')
    refused(tmp_path / 'none.npz', 'no file of reference statistics .*none.npz')


# Published statistics


def published(path, count=200, **more):
    features = numpy_features(source(count).get(np.arange(count))[0])
    arrays = {'mu': features.mean(0), 'sigma': np.cov(features, rowvar=False)}
    np.savez(path, **arrays | more)
    return features


def test_edms_statistics_are_read_as_they_are(tmp_path):
    features = published(tmp_path / 'cifar10.npz')
    found = load(tmp_path / 'cifar10.npz')
    np.testing.assert_array_equal(found.moments.mean, features.mean(0))
    np.testing.assert_array_equal(moments.covariance(found.moments), np.cov(features, rowvar=False))
    assert found.id['count'] is None and not found.id['rank_deficient']
    assert found.id['source'] == 'file cifar10.npz' and found.image_shape is None
    assert 'not told' in found.id['extractor'] and 'nor by which' in references.describe(found.id)
    refused(tmp_path / 'cifar10.npz', 'mu and sigma alone', keep=True)
    wide = EXTRACTOR._replace(name='inception', dim=2048)
    refused(
        tmp_path / 'cifar10.npz', 'is of 4 features, and the extractor inception has 2048', wide
    )


def test_a_singular_covariance_is_told(tmp_path):
    published(tmp_path / 'few.npz', count=4)
    assert load(tmp_path / 'few.npz').id['rank_deficient']


def test_adms_files_are_read_as_they_are(tmp_path):
    spatial = {'mu_s': np.zeros(7), 'sigma_s': np.eye(7)}
    images = source(20).get(np.arange(20))[0]
    features = published(tmp_path / 'adm.npz', **spatial, arr_0=images)
    found = load(tmp_path / 'adm.npz', keep=True)
    np.testing.assert_array_equal(found.moments.mean, features.mean(0))
    np.testing.assert_allclose(found.features, numpy_features(images), atol=1e-6)
    assert found.image_shape == SHAPE
    np.savez(tmp_path / 'images.npz', arr_0=images)
    found = load(tmp_path / 'images.npz')
    assert found.id['count'] == 20 and found.features is None
    np.testing.assert_allclose(found.moments.mean, numpy_features(images).mean(0), atol=1e-6)
    np.savez(tmp_path / 'activations.npz', arr_0=features.astype(np.float32))
    found = load(tmp_path / 'activations.npz', keep=True)
    assert found.id['count'] == 200 and found.features.shape == (200, 4)
    np.testing.assert_allclose(found.moments.mean, features.mean(0), rtol=1e-5)


@pytest.mark.parametrize(
    'arrays, message',
    [
        ({'mu': np.zeros((4, 1))}, r'mu of shape \(4, 1\) and sigma of \(4, 4\)'),
        ({'sigma': np.zeros((4, 3))}, r'sigma of \(4, 3\); legal: \[d\] and \[d,d\]'),
        ({'mu': np.full(4, np.nan)}, 'not finite'),
        ({'sigma': np.triu(np.ones((4, 4)))}, 'not symmetric'),
        ({'sigma': -np.eye(4)}, 'or negative'),
    ],
)
def test_what_is_no_covariance_is_refused(tmp_path, arrays, message):
    np.savez(tmp_path / 'bad.npz', **{'mu': np.zeros(4), 'sigma': np.eye(4)} | arrays)
    refused(tmp_path / 'bad.npz', message)


def test_activations_of_another_size_and_other_arrays_are_refused(tmp_path):
    np.savez(tmp_path / 'a.npz', arr_0=np.zeros((9, 5), np.float32))
    refused(tmp_path / 'a.npz', 'is of 5 features')
    np.savez(tmp_path / 'b.npz', arr_0=np.zeros((9, 5), np.int64))
    refused(tmp_path / 'b.npz', r'arr_0 of int64 \(9, 5\)')


def test_images_of_another_size_are_refused(ours):
    path, _ = ours
    generative_model = GenerativeModel(
        lambda *a: a[1], processes.variance_exploding(), (8, 8, 3), 0
    )
    with pytest.raises(UserError, match='is of images of 4x4x3, and those generated are 8x8x3'):
        space = scores.FeatureSpace(EXTRACTOR, load(path))
        scores.Scorer(generative_model, [space], 8, sharding.make_mesh())


def test_an_evaluation_takes_a_file_in_place_of_a_split(tmp_path):
    """Of the packaged LeNet; metrics that need features are refused before they are computed."""
    evaluation = Evaluation(extractor='lenet_digits', samples=100, seeds=(0,))
    extractor, made, _ = open_reference({'source': 'digits', 'split': 'train'}, evaluation)
    path = tmp_path / 'digits.npz'
    references.save(path, made, extractor)
    dataset = {'source': 'none', 'split': 'none'}
    from_file = dataclasses.replace(evaluation, reference=str(path))
    _, back, _ = open_reference(dataset, from_file)
    assert back.id == made.id
    with pytest.raises(UserError, match='holds no features'):
        open_reference(dataset, from_file, ['pr_lenet'])
