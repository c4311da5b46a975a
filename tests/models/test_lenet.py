"""LeNet: its size, its packaged weights, and the Fréchet distance in its features."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax.data import to_float
from cm_jax.data.sources import digits
from cm_jax.errors import UserError
from cm_jax.metrics import moments
from cm_jax.metrics.frechet import frechet_distance
from cm_jax.models import lenet


@pytest.fixture(autouse=True)
def _strict():
    with jax.numpy_rank_promotion('raise'):
        yield


def images_of(split):
    source = digits.open_source(split)
    images, labels = source.get(np.arange(source.count))
    return to_float(images), labels


def test_parameter_count():
    params = lenet.init(jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 61_706


def test_banded_convolution_is_the_convolution():
    layer = lenet.BandedConv(6)
    x = jax.random.normal(jax.random.key(0), (2, 9, 7, 1))
    params = layer.init(jax.random.key(1), x)['params']
    params['bias'] = jnp.arange(6.0)
    dims = ('NHWC', 'HWIO', 'NHWC')
    expected = jax.lax.conv_general_dilated(
        x, params['kernel'], (1, 1), 'SAME', dimension_numbers=dims
    )
    expected += params['bias'][None, None, None]
    np.testing.assert_allclose(layer.apply({'params': params}, x), expected, atol=1e-5)


@pytest.mark.parametrize('name', lenet.names())
@pytest.mark.parametrize('shape', [(5, 8, 8, 1), (5, 28, 28, 1), (5, 32, 32, 3)])
def test_features_are_finite_and_of_the_size_told(name, shape):
    extractor = lenet.extractor(name)
    found = jax.jit(extractor.features)(jax.random.uniform(jax.random.key(0), shape, minval=-1))
    assert found.shape == (5, extractor.dim) and found.dtype == jnp.float32
    assert np.isfinite(found).all() and found.min() >= 0 and found.std() > 0


def test_features_of_grey_do_not_depend_on_the_channels():
    x = jax.random.uniform(jax.random.key(0), (3, 8, 8, 1))
    features = lenet.extractor('lenet_digits').features
    np.testing.assert_allclose(features(jnp.tile(x, (1, 1, 1, 3))), features(x), atol=1e-4)


def test_features_keep_nan():
    x = jnp.zeros((2, 8, 8, 1)).at[0, 3, 3, 0].set(np.nan)
    found = lenet.extractor('lenet_digits').features(x)
    assert np.isnan(found[0]).any() and np.isfinite(found[1]).all()


def test_digits_accuracy_is_the_recorded_one():
    params, record = lenet.load('lenet_digits')
    images, labels = images_of('test')
    accuracy = np.mean(lenet.logits(params, images).argmax(-1) == labels)
    assert abs(accuracy - record['test_accuracy']) < 1e-3
    assert record['test_accuracy'] > 0.95


@pytest.mark.parametrize('name', lenet.names())
def test_record_belongs_to_the_weights(name):
    params, record = lenet.load(name)
    assert lenet.extractor(name).checksum == record['checksum'] == lenet.checksum(params)
    assert f'--weights={name}' in record['command']


def test_unknown_weights_are_refused():
    with pytest.raises(UserError, match=r"LeNet weights 'lenet_digit' \(did you mean 'lenet_dig"):
        lenet.extractor('lenet_digit')


def test_damaged_weights_are_refused(tmp_path, monkeypatch):
    for suffix in ('npz', 'json'):
        shutil.copy(lenet.WEIGHTS / f'lenet_digits.{suffix}', tmp_path)
    monkeypatch.setattr(lenet, 'WEIGHTS', tmp_path)
    params, record = lenet.load('lenet_digits')
    params['conv1']['bias'][0] += 1e-6
    lenet.save('lenet_digits', params, record)
    lenet.load('lenet_digits')
    (tmp_path / 'lenet_digits.json').write_text(json.dumps(record))
    with pytest.raises(UserError, match='is damaged: its checksum is'):
        lenet.load('lenet_digits')
    (tmp_path / 'lenet_digits.npz').write_bytes(b'PK\x03\x04 cut')
    with pytest.raises(UserError, match='cannot be read'):
        lenet.load('lenet_digits')


def test_fd_lenet_tells_digits_from_noise():
    features = jax.jit(lenet.extractor('lenet_digits').features)
    train, test = (moments.of(features(images_of(split)[0])) for split in ('train', 'test'))
    noise = jax.random.uniform(jax.random.key(0), (300, 8, 8, 1), minval=-1)
    to_test = frechet_distance(train, test)
    to_noise = frechet_distance(train, moments.of(features(noise)))
    assert 0 < 10 * to_test < to_noise
