"""Augmentation: the paper's own numbers, closed forms, the laws of the draws."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax.core import augment as augmentation
from cm_jax.core.augment import LABELS, SYM6, Transform
from tests.helpers.arrays import noise_image

SHAPES = [(8, 8, 1), (20, 16, 3), (2, 3, 1), (1, 5, 1)]
each_shape = pytest.mark.parametrize('shape', SHAPES, ids=str)
augment = jax.jit(augmentation.augment)
apply_each = jax.jit(jax.vmap(augmentation.apply))
labels_each = jax.jit(jax.vmap(augmentation.labels))
draw_each = jax.jit(jax.vmap(augmentation.draw, (0, None)))


def transform(**changes) -> Transform:
    """A transform of one image; 0 where it is not named."""
    return Transform(*(jnp.float32(changes.get(name, 0)) for name in Transform._fields))


def transformed(x: np.ndarray, **changes) -> np.ndarray:
    one = jax.tree.map(lambda value: value[None], transform(**changes))
    return np.asarray(apply_each(one, jnp.asarray(x, jnp.float32)[None])[0])


def smooth_image(height: int, width: int) -> np.ndarray:
    """A few low cosines in [-1, 1], smooth over the mirrored edges, without any symmetry."""
    y, x = (np.cos(np.pi * np.arange(n) / (n - 1)) for n in (height, width))
    y, x = y[:, None, None], x[None, :, None]
    return ((y - 0.7 * x + x * y + 0.4 * x**2 - y**3) / 2.1).astype(np.float32)


# The paper's own numbers


def test_augmented_images_and_labels_are_the_papers(recorded):
    arrays, _ = recorded('augment_edm')
    drawn = Transform(*(jnp.asarray(arrays[f'transform/{name}']) for name in Transform._fields))
    x0, theirs = (arrays[f'{name}_nchw'].transpose(0, 2, 3, 1) for name in ('images', 'augmented'))
    assert all(np.count_nonzero(drawn_of) >= 5 for drawn_of in drawn)
    np.testing.assert_allclose(labels_each(drawn), arrays['labels'], atol=1e-6)
    np.testing.assert_allclose(apply_each(drawn, jnp.asarray(x0)), theirs, atol=2e-5)


def test_filter_is_daubechies_symlet():
    """Orthonormal to its even shifts, six vanishing moments, as near to symmetric as these allow."""
    k = np.arange(12)
    for shift in range(0, 12, 2):
        product = np.sum(SYM6[shift:] * SYM6[: 12 - shift])
        np.testing.assert_allclose(product, shift == 0, atol=1e-11)
    for power in range(6):
        moment = np.sum((-1.0) ** k * (k - 5.5) ** power * SYM6)
        np.testing.assert_allclose(moment, 0, atol=1e-8)
    np.testing.assert_allclose(np.sum(SYM6), np.sqrt(2), rtol=1e-11)
    assert abs(np.sum(k * SYM6) / np.sum(SYM6) - augmentation.CENTRE) < 0.1


# What each transform does


@each_shape
def test_nothing_is_done_at_probability_zero(shape):
    x0 = jnp.stack([noise_image(shape, seed) for seed in range(3)])
    found, labels = augment(jax.random.key(0), x0, 0.0)
    np.testing.assert_array_equal(found, x0)
    np.testing.assert_array_equal(labels, np.zeros((3, LABELS)))


@each_shape
def test_warp_that_moves_nothing_gives_the_image_back(shape):
    x = noise_image(shape)
    found = jax.jit(augmentation.warp)(transform(), jnp.asarray(x))
    np.testing.assert_allclose(found, x, atol=3e-6)


@each_shape
def test_flips_are_exact(shape):
    x = noise_image(shape)
    np.testing.assert_array_equal(transformed(x, flip_x=1), x[:, ::-1])
    np.testing.assert_array_equal(transformed(x, flip_y=1), x[::-1])
    np.testing.assert_array_equal(transformed(x, flip_x=1, flip_y=1), x[::-1, ::-1])


@pytest.mark.parametrize('right, down', [(3, 0), (0, -2), (-5, 4), (15, 19)])
def test_shift_by_whole_pixels_is_exact_over_mirrored_edges(right, down):
    height, width = 20, 16
    x = noise_image((height, width, 2))
    found = transformed(x, shift_x=8 * right / width, shift_y=8 * down / height)
    padded = np.pad(x, [(19, 19), (15, 15), (0, 0)], 'reflect')
    wanted = padded[19 - down : 19 - down + height, 15 - right : 15 - right + width]
    np.testing.assert_allclose(found, wanted, atol=3e-5)


def test_mirrored_image_repeats_without_end():
    """Shifted by 2 W - 2 pixels, however often, an image is where it was."""
    x = noise_image((16, 16, 1))
    for times in (1, -3):
        np.testing.assert_allclose(transformed(x, shift_x=15.0 * times), x, atol=1e-4)
        np.testing.assert_allclose(transformed(x, shift_y=15.0 * times), x, atol=1e-4)


@pytest.mark.parametrize('turns', [1, 2, -1])
def test_rotation_by_right_angles_is_numpys(turns):
    """Up to the filter's asymmetry, which moves the image by less than a tenth of a pixel."""
    x = smooth_image(32, 32)
    found, wanted = transformed(x, angle=turns * np.pi / 2), np.rot90(x, turns)
    assert np.abs(found - wanted).max() < 0.02
    assert np.abs(found - np.rot90(x, turns + 1)).max() > 0.5


def turn(angle: float) -> np.ndarray:
    """Anticlockwise as seen, for columns (x right, y down)."""
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


@pytest.mark.parametrize(
    'changes',
    [
        {'scale': 2.0},
        {'scale': -1.5},
        {'angle': 0.7},
        {'angle': -2.5},
        {'stretch': 1.5},
        {'stretch': 1.5, 'axis': 0.6},
        {'stretch': -1.2, 'axis': -2.0},
        {'shift_x': 0.71},
        {'shift_y': -0.63},
        {'scale': 0.6, 'angle': 2.0, 'stretch': 0.9, 'axis': 0.8, 'shift_x': -0.4, 'shift_y': 0.5},
        {'flip_x': 1, 'scale': -0.8, 'angle': 0.5, 'stretch': 1.1, 'axis': 2.4, 'shift_x': 0.3},
    ],
    ids=lambda changes: '-'.join(changes),
)
def test_blob_goes_where_the_affine_map_takes_it(changes):
    """A Gaussian blob off the centre, where its image comes from within the edges, against the map

    places -> shift + stretch rotate scale flip places, with columns (right, down) of the centre.
    """
    height, width, std = 40, 48, 4.0
    t = {name: changes.get(name, 0) for name in Transform._fields}
    a, r = 2 ** (0.2 * t['stretch']), t['axis']
    forward = turn(r) @ np.diag([a, 1 / a]) @ turn(-r) @ turn(t['angle']) * 2 ** (0.2 * t['scale'])
    forward = forward @ np.diag([-1.0 if t['flip_x'] else 1.0, 1.0])
    shift = np.array([width * t['shift_x'], height * t['shift_y']]) / 8
    centred = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1)
    edge = np.array([width - 1, height - 1]) / 2
    centred = centred - edge

    def blob(places):
        return np.exp(-np.sum((places - np.array([3.0, -2.0])) ** 2, axis=-1) / (2 * std**2))

    found = transformed(blob(centred)[..., None], **changes)[..., 0]
    source = (centred - shift) @ np.linalg.inv(forward).T
    inside = np.all(np.abs(source) <= edge, axis=-1)
    assert np.mean(inside) > 0.5
    assert np.abs(found - blob(source))[inside].max() < 0.02
    assert np.abs(blob(centred) - blob(source))[inside].max() > 0.1


@each_shape
def test_constant_images_stay_constant(shape):
    x0 = jnp.full((16, *shape), 0.7)
    found, labels = augment(jax.random.key(0), x0, 1.0)
    np.testing.assert_allclose(found, 0.7, atol=1e-5)
    assert np.all(labels[:, 2] != 0)


def test_smooth_images_keep_their_range():
    """Rough ones overshoot, with the paper's code too: the filter has negative taps."""
    x0 = jnp.tile(smooth_image(32, 32)[None], (64, 1, 1, 1))
    assert np.abs(x0).max() > 0.9
    found, _ = augment(jax.random.key(0), x0, 1.0)
    assert np.abs(found).max() < 1.02 * np.abs(x0).max()


# How transforms are drawn


@functools.cache
def drawn(probability: float, count: int = 40_000) -> tuple[Transform, np.ndarray]:
    found = draw_each(jax.random.split(jax.random.key(1), count), probability)
    return jax.tree.map(np.asarray, found), np.asarray(labels_each(found))


def assert_mean(values: np.ndarray, mean: float) -> None:
    """Within five standard errors."""
    error = np.std(values) / np.sqrt(len(values)) + 1e-9
    assert abs(np.mean(values) - mean) < 5 * error, (np.mean(values), mean, error)


def assert_moments(values: np.ndarray, std: float) -> None:
    assert_mean(values, 0)
    assert_mean(values**2, std**2)


@pytest.mark.parametrize('p', [0.12, 0.6, 1.0])
def test_each_transform_is_drawn_as_often_as_it_should(p):
    _, labels = drawn(p)
    applied = labels != 0
    for column, probability in enumerate([0.5, p / 2, p, p, p, p, None, p, p]):
        if probability is not None:
            assert_mean(applied[:, column], probability)
    assert_mean(applied[:, 6], p / 2)  # the sine of an axis that is 0 half of the time


def test_transforms_are_drawn_independently_and_a_shift_is_one():
    p = 0.6
    applied = drawn(p)[1] != 0
    np.testing.assert_array_equal(applied[:, 3], applied[:, 4])
    np.testing.assert_array_equal(applied[:, 7], applied[:, 8])
    columns, probability = [0, 1, 2, 3, 5, 7], [0.5, p / 2, p, p, p, p]
    for i, first in enumerate(columns):
        for j, second in enumerate(columns[:i]):
            assert_mean(applied[:, first] & applied[:, second], probability[i] * probability[j])


def test_labels_are_zero_exactly_where_nothing_was_done():
    found, labels = drawn(0.6)
    parts = [found.flip_x, found.flip_y, found.scale, found.angle, found.angle]
    parts += [found.stretch, found.stretch * found.axis, found.shift_x, found.shift_y]
    for column, part in zip(labels.T, parts, strict=True):
        np.testing.assert_array_equal(column != 0, part != 0)
    assert set(np.unique(labels[:, :2])) == {0, 1}


def test_strengths_are_drawn_from_the_papers_laws():
    found, _ = drawn(0.6)
    for name in ('scale', 'stretch', 'shift_x', 'shift_y'):
        values = getattr(found, name)
        assert_moments(values[values != 0], 1)
    for values in (found.angle, found.axis):
        values = values[values != 0]
        assert_moments(values, np.pi / np.sqrt(3))
        assert 3.1 < np.abs(values).max() <= np.float32(np.pi)
    both = found.shift_x != 0
    assert_mean(found.shift_x[both] * found.shift_y[both], 0)


def test_labels_are_the_papers_in_its_order():
    one = transform(flip_x=1, scale=0.4, angle=0.3, stretch=-2, axis=0.9, shift_x=0.5, shift_y=-1)
    turned, stretched = [np.cos(0.3) - 1, np.sin(0.3)], [-2 * np.cos(0.9), -2 * np.sin(0.9)]
    wanted = [1, 0, 0.4, *turned, *stretched, 0.5, -1]
    np.testing.assert_allclose(augmentation.labels(one), wanted, rtol=1e-5)
    np.testing.assert_array_equal(augmentation.labels(transform()), np.zeros(LABELS))


# A batch


def test_each_example_has_a_transform_of_its_own_key_alone():
    x0 = jnp.tile(noise_image((8, 8, 1))[None], (6, 1, 1, 1))
    found, labels = augment(jax.random.key(2), x0, 0.6)
    reversed_keys = jax.random.split(jax.random.key(2), 6)[::-1]
    transforms = draw_each(reversed_keys, 0.6)
    np.testing.assert_allclose(found[::-1], apply_each(transforms, x0), atol=1e-5)
    np.testing.assert_allclose(labels[::-1], labels_each(transforms), atol=1e-6)
    assert len(np.unique(labels, axis=0)) == 6
    other, _ = augment(jax.random.key(2), x0.at[:5].set(0.3), 0.6)
    np.testing.assert_array_equal(other[5], found[5])


def test_upright_images_are_neither_rotated_nor_upside_down():
    """The other transforms are those that are drawn without it, with their labels."""
    key, count = jax.random.key(2), 24
    x0 = jnp.asarray(noise_image((8, 8, 1)))[None].repeat(count, axis=0)
    drawn = draw_each(jax.random.split(key, count), 0.7)
    kept = drawn._replace(flip_y=0 * drawn.flip_y, angle=0 * drawn.angle)
    assert np.any(drawn.flip_y) and np.any(drawn.angle)
    found, labels = jax.jit(functools.partial(augmentation.augment, upright=True))(key, x0, 0.7)
    np.testing.assert_allclose(found, apply_each(kept, x0), atol=1e-6)
    np.testing.assert_allclose(labels, labels_each(kept)[:, [0, 2, 5, 6, 7, 8]], atol=1e-6)
    assert labels.shape == (count, len(augmentation.UPRIGHT))


def test_jitted_and_not_jitted_agree():
    x0 = jnp.stack([noise_image((8, 8, 1), seed) for seed in range(6)])
    plain, plain_labels = augmentation.augment(jax.random.key(3), x0, 0.7)
    found, labels = augment(jax.random.key(3), x0, 0.7)
    np.testing.assert_allclose(found, plain, atol=1e-5)
    np.testing.assert_allclose(labels, plain_labels, atol=1e-6)
    assert found.dtype == labels.dtype == jnp.float32 and labels.shape == (6, LABELS)
