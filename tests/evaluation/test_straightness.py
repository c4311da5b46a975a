"""Straightness of paths: closed forms, and the command that measures it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax import sharding
from cm_jax.core import process
from cm_jax.core.process import expand
from cm_jax.errors import UserError
from cm_jax.evaluation.straightness import straightness_protocol, straightness_row
from cm_jax.metrics.straightness import straightness
from cm_jax.samplers import GenerativeModel
from tests.helpers.gaussian import Gaussian

RF = process.build('rf', 1e-5, 1.0)
SHAPE = (3, 2, 1)


def noise(count=5):
    return jax.random.normal(jax.random.key(0), (count, *SHAPE))


def measured(denoise, x, steps, p=RF):
    return np.asarray(jax.jit(lambda x: straightness(denoise, p, x, steps))(x))


@pytest.mark.parametrize('t_max', [1.0, 0.9])
def test_paths_of_constant_velocity_are_straight(t_max):
    p = process.build('rf', 1e-5, t_max)
    c = jnp.asarray(np.random.default_rng(0).standard_normal(SHAPE), jnp.float32)[None]
    found = measured(lambda x, t: x - expand(t, x) * c, noise(), 32, p)
    np.testing.assert_allclose(found, 0, atol=1e-9)


def test_data_that_are_one_image_are_reached_on_straight_paths():
    found = measured(lambda x, t: jnp.full_like(x, 0.3), noise(), 64)
    np.testing.assert_allclose(found, 0, atol=1e-6)


def test_a_velocity_of_time_alone_has_the_variance_of_its_steps():
    """v = 3 t, so that with n steps S is 9 (n^2 - 1) / (12 n^2), in each value."""
    for steps in (1, 2, 7):
        found = measured(lambda x, t: x - 3 * expand(t, x) ** 2, noise(), steps)
        expected = 9 * (steps**2 - 1) / (12 * steps**2) * np.prod(SHAPE)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize('std', [1.0, 0.5])
def test_gaussian_data_have_the_straightness_of_their_closed_form(std):
    """x(t) = g(t) z with g^2 = (1 - t)^2 std^2 + t^2: S = |z|^2 (int g'^2 dt - (1 - std)^2).

    Of std 1 the integral is 2 - pi/2.
    """
    t = np.linspace(0, 1, 100_001)
    slope = (t - (1 - t) * std**2) / np.sqrt((1 - t) ** 2 * std**2 + t**2)
    integral = np.trapezoid(slope**2, t)
    if std == 1:
        np.testing.assert_allclose(integral, 2 - np.pi / 2, rtol=1e-8)
    data, z = Gaussian(0.0, std), noise()
    square = np.sum(np.asarray(z) ** 2, axis=(1, 2, 3))
    expected = square * (integral - (1 - std) ** 2)
    errors = []
    for steps in (100, 400):
        found = measured(lambda x, t: data.denoise(RF, x, t), z, steps)
        errors.append(np.abs(found / expected - 1).max())
    assert errors[1] < 0.02 and errors[1] < 0.3 * errors[0], errors


def test_a_row_is_the_mean_over_the_samples_that_its_protocol_names():
    """Whatever the batch size; labels go round, and the noise is that of `samplers.start`."""

    def denoise(params, x, t, label):
        return x - params * expand(t, x) ** 2 * (1 + label[:, None, None, None])

    generative_model, steps = GenerativeModel(denoise, RF, SHAPE, 3), 4
    # v = params t (1 + label): the variance of t over steps, times (1 + label)^2, in each value
    wanted = 4 * (steps**2 - 1) / (12 * steps**2) * np.prod(SHAPE) * (np.arange(7) % 3 + 1.0) ** 2
    for seeds, batch_size in (((3,), 7), ((3, 4), 2), ((3, 4), 100)):
        protocol = straightness_protocol(generative_model, steps, 7, seeds, ema='0.9', step=5)
        row = straightness_row(generative_model, sharding.make_mesh(), 2.0, protocol, batch_size)
        np.testing.assert_allclose(row['values'], [wanted.mean()] * len(seeds), rtol=1e-5)
        assert (row['straightness_std'] is None) == (len(seeds) == 1)
        assert row['protocol'] == {
            'metric': 'straightness',
            'euler_steps': 4,
            'samples': 7,
            'seeds': list(seeds),
            'ema': '0.9',
            'step': 5,
            'labels': 'index modulo 3',
        }


def test_variance_exploding_and_no_steps_are_refused():
    ve = process.build('ve', 0.002, 80.0)
    with pytest.raises(UserError, match=r"of process rf, .* got 've'"):
        straightness(lambda x, t: x, ve, noise(), 8)
    with pytest.raises(UserError, match='at least 1 step, got 0'):
        straightness(lambda x, t: x, RF, noise(), 0)
