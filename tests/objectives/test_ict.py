"""iCT: the law of its levels, its stages and its distance."""

from math import erf

import jax
import jax.numpy as jnp
import numpy as np

from cm_jax.core import noise
from tests.helpers.consistency import behind, boundary, build
from tests.helpers.objectives import make_batch


def test_ict_levels_follow_the_lognormal_law_over_the_grid():
    """The share of each gap in the objective's draws, against the erf differences in NumPy."""
    image = jnp.zeros((50_000, 1, 1, 1))
    batch = {'image': image, 'label': jnp.zeros(len(image), int)}
    net = behind(lambda x, t: x, boundary)
    loss = jax.jit(build('ict', net, total_steps=8).loss)
    _, metrics = loss({}, (), (), batch, jax.random.key(0), jnp.int32(0))
    sigmas = np.asarray(noise.karras_sigmas(11, 0.002, 80.0))[::-1]
    cdf = np.array([erf((np.log(s) + 1.1) / (2**0.5 * 2.0)) for s in sigmas])
    wanted = np.diff(cdf) / (cdf[-1] - cdf[0])
    np.testing.assert_allclose(noise.ict_level_probs(sigmas, -1.1, 2.0), wanted, atol=1e-6)
    t = np.asarray(metrics['t'])
    found = np.array([np.mean(np.isclose(t, s, rtol=1e-4)) for s in sigmas[1:]])
    np.testing.assert_allclose(found.sum(), 1)
    np.testing.assert_allclose(found, wanted, atol=4 * np.sqrt(0.25 / len(t)))
    r = t * (1 - np.asarray(metrics['gap']))
    below = sigmas[np.argmin(np.abs(np.log(sigmas[:, None] / t)), axis=0) - 1]
    np.testing.assert_allclose(r, below, rtol=1e-2)


def test_ict_draws_only_levels_of_its_stage():
    net = behind(lambda x, t: x, boundary)
    objective = build('ict', net, total_steps=80, s0=2, s1=16)
    batch = {'image': jnp.zeros((2000, 1, 1, 1)), 'label': jnp.zeros(2000, int)}
    loss = jax.jit(objective.loss)
    for step, gaps in ((0, 2), (20, 4), (40, 8), (79, 16)):
        _, metrics = loss({}, (), (), batch, jax.random.key(0), jnp.int32(step))
        grid = np.asarray(noise.karras_sigmas(gaps + 1, 0.002, 80.0))
        nearest = np.abs(grid[:, None] / np.asarray(metrics['t']) - 1)
        assert np.all(nearest.min(axis=0) < 1e-4)
        assert set(nearest.argmin(axis=0)) <= set(range(gaps))


def test_ict_distance_is_pseudo_huber_with_c_by_the_size_of_the_image():
    net = behind(lambda x, t: 0.3 * x, boundary)
    args = {}, (), (), make_batch(), jax.random.key(0), jnp.int32(0)
    found = build('ict', net).loss(*args)[0]
    np.testing.assert_array_equal(found, build('ict', net, c=0.00054 * np.sqrt(32)).loss(*args)[0])
    assert not np.any(found == build('ict', net, c=0.1).loss(*args)[0])
