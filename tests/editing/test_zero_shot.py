"""Editing: what is known is kept, nothing else is used, the rest is drawn given what is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax.core import process
from cm_jax.editing import tasks, zero_shot
from cm_jax.errors import UserError
from cm_jax.samplers import multistep

VE = process.build('ve', 0.002, 80.0)
RF = process.build('rf', 1e-3, 1.0)
SHAPE = (12, 8, 3)
LEVELS = {'ve': np.float32([80, 10, 1, 0.1]), 'rf': np.float32([1, 0.6, 0.2])}
each_process = pytest.mark.parametrize('p', [VE, RF], ids=['ve', 'rf'])


def keys_of(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def every_task():
    return {
        'center': tasks.inpainting(tasks.make_mask('center', SHAPE, keys_of(5))),
        'random': tasks.inpainting(tasks.make_mask('random', SHAPE, keys_of(5))),
        'colorize': tasks.colorization(SHAPE),
        'superres2': tasks.superresolution(SHAPE, 2),
        'superres4': tasks.superresolution(SHAPE, 4),
    }


each_task = pytest.mark.parametrize('name', every_task())


def images_of(count=5, seed=0, shape=SHAPE):
    return jax.random.uniform(jax.random.key(seed), (count, *shape), minval=-1, maxval=1)


def denoise(x, t):
    """Any function: bounded, and mixing pixels and channels."""
    return jnp.tanh(x[:, ::-1, :, ::-1] / (1 + t[:, None, None, None]))


def edited(p, task, images, seed=1, levels=None):
    x_T = p.prior_std * jax.random.normal(jax.random.key(seed), images.shape)
    ts = LEVELS[p.name] if levels is None else levels
    run = jax.jit(
        lambda images, ts: zero_shot.edit(denoise, p, task, images, x_T, ts, keys_of(5, seed))
    )
    return np.asarray(run(images, ts))


@each_task
def test_transforms_are_orthogonal_and_undone(name):
    task, x = every_task()[name], images_of()
    z = task.transform(x)
    np.testing.assert_allclose(task.inverse(z), x, atol=2e-6)
    np.testing.assert_allclose(jnp.sum(z**2), jnp.sum(x**2), rtol=1e-5)
    assert z.size == x.size and task.known.ndim == z.ndim


@pytest.mark.parametrize('n', [2, 3, 9])
def test_the_first_row_is_the_one_asked_for(n):
    first = np.random.default_rng(n).normal(size=n)
    first /= np.linalg.norm(first)
    matrix = tasks.orthogonal(first)
    np.testing.assert_allclose(matrix[0], first, atol=1e-12)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(n), atol=1e-12)


def test_what_is_known_is_the_luma_or_the_mean_of_a_patch():
    x = np.asarray(images_of(), np.float64)
    grey = x @ np.array(tasks.LUMA)
    task = tasks.colorization(SHAPE)
    shown = task.show(zero_shot.measured(task, images_of()))
    np.testing.assert_allclose(shown, np.repeat(grey[..., None], 3, -1), atol=1e-6)
    means = x.reshape(5, 3, 4, 2, 4, 3).mean((2, 4))
    task = tasks.superresolution(SHAPE, 4)
    shown = task.show(zero_shot.measured(task, images_of()))
    np.testing.assert_allclose(shown, means.repeat(4, 1).repeat(4, 2), atol=1e-6)


@each_process
@each_task
def test_what_is_known_is_kept_and_the_rest_is_drawn(name, p):
    task, images = every_task()[name], images_of()
    found, other = edited(p, task, images), edited(p, task, images, seed=2)
    np.testing.assert_allclose(
        zero_shot.measured(task, found), zero_shot.measured(task, images), atol=1e-5, rtol=0
    )
    missing = ~jnp.broadcast_to(task.known, task.transform(images).shape)
    apart = np.asarray(task.transform(found - other))[np.asarray(missing)]
    assert np.mean(np.abs(apart) > 1e-3) > 0.95


@each_task
def test_what_is_not_known_is_not_used(name):
    task, images = every_task()[name], images_of()
    elsewhere = zero_shot.keep(task, images, images_of(seed=7))
    np.testing.assert_allclose(
        edited(VE, task, elsewhere), edited(VE, task, images), atol=1e-5, rtol=0
    )


@each_process
def test_inpainting_with_all_known_returns_the_image_and_with_none_is_multistep_sampling(p):
    images = images_of()
    mask = jnp.ones((1, *SHAPE[:2], 1), bool)
    np.testing.assert_array_equal(edited(p, tasks.inpainting(mask), images), images)
    x_T = p.prior_std * jax.random.normal(jax.random.key(1), images.shape)
    unconditional = multistep.sample(denoise, p, x_T, LEVELS[p.name], keys_of(5, 1))
    found = edited(p, tasks.inpainting(~mask), images)
    np.testing.assert_allclose(found, unconditional, atol=1e-6, rtol=0)


def test_masks_lack_what_they_say():
    center, left, random = (tasks.make_mask(name, (8, 6, 1), keys_of(500)) for name in tasks.MASKS)
    assert center.shape == left.shape == random.shape == (500, 8, 6, 1)
    assert not center[:, 2:6, 1:5].any() and center.sum() == 500 * (48 - 16)
    assert not left[:, :, :3].any() and left[:, :, 3:].all()
    assert abs(random.mean() - 0.5) < 4 * 0.5 / np.sqrt(random.size)
    assert len(np.unique(np.asarray(random).reshape(500, -1), axis=0)) == 500


# Gaussian data N(0, S), two pixels of correlation RHO, of which the first is known to be k. The
# consistency function is f(x, t) = S^1/2 (S + t^2 I)^-1/2 x, and so each level is linear in x.

STD, RHO, KNOWN = 0.5, 0.8, 0.7


def consistency(t):
    """The matrix [2, 2] of f(., t)."""
    s, u = np.linalg.eigh(STD**2 * np.array([[1, RHO], [RHO, 1]]))
    return u @ np.diag(np.sqrt(s / (s + t**2))) @ u.T


def law(ts):
    """Mean and std of the unknown pixel u after the levels ts: u' = M_uk (k + t z) + M_uu (u + t z)."""
    mean = variance = 0.0
    for t in ts:
        to_u = consistency(t)[1]
        mean = to_u[0] * KNOWN + to_u[1] * mean
        variance = to_u[1] ** 2 * variance + t**2 * (to_u @ to_u)
    return mean, np.sqrt(variance)


def inpainted(ts, count):
    s, u = np.linalg.eigh(STD**2 * np.array([[1, RHO], [RHO, 1]]))
    s, u = jnp.float32(s), jnp.float32(u)

    def f(x, t):
        turned = x.reshape(-1, 2) @ u * jnp.sqrt(s[None] / (s[None] + t[:, None] ** 2))
        return (turned @ u.T).reshape(x.shape)

    task = tasks.inpainting(jnp.array([True, False]).reshape(1, 1, 2, 1))
    images = jnp.broadcast_to(jnp.array([KNOWN, 9.0]).reshape(1, 1, 2, 1), (count, 1, 2, 1))
    x_T = 80 * jax.random.normal(jax.random.key(0), images.shape)
    run = jax.jit(lambda ts: zero_shot.edit(f, VE, task, images, x_T, ts, keys_of(count, 1)))
    found = np.asarray(run(np.float32(ts)), np.float64)
    np.testing.assert_array_equal(found[:, 0, 0, 0], np.float32(KNOWN))
    return found[:, 0, 1, 0]


def test_few_levels_have_the_law_that_linear_steps_have():
    ts, count = [80, 2, 0.7, 0.2], 20_000
    found, (mean, std) = inpainted(ts, count), law(ts)
    assert abs(found.mean() - mean) < 4 * std / np.sqrt(count)
    assert abs(found.std() - std) < 4 * std / np.sqrt(2 * count)


def test_many_levels_sample_the_data_given_what_is_known():
    """As levels descend slowly, the inpainted pixel is N(rho k, (1 - rho^2) std^2)."""
    ts, count = [80, *np.geomspace(1, 0.02, 500)], 5_000
    mean, std = RHO * KNOWN, np.sqrt(1 - RHO**2) * STD
    near = law(ts)
    assert abs(near[0] / mean - 1) < 0.02 and abs(near[1] / std - 1) < 0.02
    found = inpainted(ts, count)
    assert abs(found.mean() - mean) < 0.02 * mean + 4 * std / np.sqrt(count)
    assert abs(found.std() - std) < 0.02 * std + 4 * std / np.sqrt(2 * count)


@pytest.mark.parametrize(
    ('make', 'words'),
    [
        (lambda: tasks.colorization((8, 8, 1)), 'colorize needs images of 3 channels.*have 1'),
        (lambda: tasks.superresolution((12, 8, 3), 3), 'divides images of 12x8, got 3'),
        (lambda: tasks.superresolution((12, 8, 3), 1), 'factor >= 2 .*, got 1'),
        (
            lambda: tasks.make_mask('middle', SHAPE, keys_of(1)),
            "unknown mask 'middle'.*center, left",
        ),
    ],
)
def test_wrong_tasks_are_refused(make, words):
    with pytest.raises(UserError, match=words):
        make()
