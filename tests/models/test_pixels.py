"""Pooled pixels: what they keep of an image, and what is refused."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax import data
from cm_jax.data import to_float
from cm_jax.errors import UserError
from cm_jax.evaluation import scores
from cm_jax.metrics import moments
from cm_jax.metrics.frechet import frechet_distance
from cm_jax.models import pixels
from tests.helpers.resizing import resized


def images(shape, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def features(name, x):
    extractor = pixels.extractor(name)
    found = jax.jit(extractor.apply)(extractor.params, x)
    assert found.shape == (len(x), extractor.dim) and found.dtype == jnp.float32
    assert np.abs(found).max() <= 1 + 1e-6
    return np.asarray(found)


def test_images_of_eight_by_eight_are_their_own_features():
    grey, colour = images((3, 8, 8, 1)), images((3, 8, 8, 3))
    np.testing.assert_array_equal(features('pixel', grey), grey.reshape(3, 64))
    np.testing.assert_array_equal(features('pixel_rgb', colour), colour.reshape(3, 192))


@pytest.mark.parametrize('height, width', [(28, 28), (32, 48)])
def test_larger_images_are_averaged_with_the_triangle_filter(height, width):
    x = images((2, height, width, 3))
    wanted = resized(x, 8)
    np.testing.assert_allclose(features('pixel_rgb', x), wanted.reshape(2, 192), atol=1e-6)
    np.testing.assert_allclose(features('pixel', x), wanted.mean(-1).reshape(2, 64), atol=1e-6)


def test_colour_is_seen_by_one_and_fine_detail_by_none():
    x = images((2, 32, 32, 3))
    np.testing.assert_allclose(features('pixel', x), features('pixel', x[..., ::-1]), atol=1e-6)
    assert np.abs(features('pixel_rgb', x) - features('pixel_rgb', x[..., ::-1])).max() > 0.01
    board = np.indices((32, 32)).sum(0) % 2 * 2.0 - 1
    board = np.float32(board)[None, :, :, None]
    np.testing.assert_allclose(features('pixel', board)[:, 9], 0, atol=1e-6)


@pytest.mark.parametrize('channels', [1, 4])
def test_other_channels_are_refused_when_the_program_is_built(channels):
    x = jax.ShapeDtypeStruct((2, 16, 16, channels), jnp.float32)
    with pytest.raises(UserError, match=f"'pixel_rgb' .* with {channels} channels; legal: 3, .*'p"):
        jax.eval_shape(pixels.features_rgb, {}, x)


def test_what_identifies_them():
    grey, colour = (pixels.extractor(name) for name in ('pixel', 'pixel_rgb'))
    assert (grey.score, grey.dim, colour.score, colour.dim) == ('fd_pixel', 64, 'fd_pixel_rgb', 192)
    assert grey.logits is colour.logits is None and grey.params == colour.params == {}
    assert grey.checksum == hashlib.sha256(pixels.formula('pixel').encode()).hexdigest()
    assert grey.checksum != colour.checksum and grey.resize in pixels.formula('pixel')
    with pytest.raises(
        UserError, match=r"pixels 'pixels' \(did you mean 'pixel'\?\); legal: pixel"
    ):
        pixels.extractor('pixels')


def test_fd_pixel_tells_digits_from_noise():
    extractor = pixels.extractor('pixel')
    train, test = (
        scores.reference(data.open_source('digits', split), extractor, 500).moments
        for split in ('train', 'test')
    )
    noise = moments.of(features('pixel', images((300, 8, 8, 1))))
    assert 0 < 10 * frechet_distance(train, test) < frechet_distance(train, noise)


def test_features_of_data_are_the_mean_of_its_pixels():
    source = data.open_source('digits', 'test')
    shown = to_float(source.get(np.arange(source.count))[0])
    found = scores.reference(source, pixels.extractor('pixel'), 100).moments
    np.testing.assert_allclose(found.mean, np.mean(shown, 0).ravel(), atol=1e-5)
