"""Samples of an opened run: compiled once, from chosen classes and noise, by each snapshot."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax import samplers
from tests.helpers import tiny
from tests.helpers.refusals import refusal
from tests.helpers.run_folders import DIGITS, untrained_run

COUNT = 4


@pytest.fixture
def compiled():
    """A list that grows by each program that XLA compiles, or takes from its cache."""
    names = []

    def listen(name, seconds, **details):
        if name.endswith('compile_duration'):
            names.append(name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield names
    jax.monitoring.unregister_event_duration_listener(listen)


def test_a_second_call_compiles_nothing(opened, compiled):
    first = opened.sample(opened.params(0), 'multistep@80,1', COUNT)
    assert compiled
    compiled.clear()
    second = opened.sample(opened.params(3), 'multistep@80,1', COUNT, seed=1)
    np.testing.assert_array_equal(opened.sample(opened.params(0), 'multistep@80,1', COUNT), first)
    assert np.any(second != first) and not compiled


def test_each_snapshot_samples_from_the_same_noise(opened):
    images = opened.sample_each(count=COUNT, seed=2)
    assert images.shape == (2, COUNT, 8, 8, 1) and images.dtype == np.uint8
    spec = opened.settings.sampling.sampler
    for step, found in zip((0, 3), images):
        np.testing.assert_array_equal(found, opened.sample(opened.params(step), spec, COUNT, 2))
    np.testing.assert_array_equal(opened.sample_each([3], count=COUNT, seed=2), images[1:])
    averages = opened.sample_each(ema='0.9', count=COUNT, seed=2)
    np.testing.assert_array_equal(averages, images[:1])  # step 3 holds the weights of step 0 so


def test_classes_and_noise_are_chosen(opened):
    params, seed, order = opened.params(), 3, np.arange(COUNT)
    eps = np.random.default_rng(0).standard_normal((COUNT, 8, 8, 1))
    begin = samplers.start(opened.parts.generative_model, seed, jnp.arange(COUNT))
    own = np.asarray(begin.x_T) / opened.parts.process.prior_std

    def sample(labels, noise):
        images = opened.sample(params, 'onestep', COUNT, seed, labels=labels, noise=noise)
        return images.astype(int)

    plain = opened.sample(params, 'onestep', COUNT, seed)
    assert np.abs(sample(order, own) - plain).max() <= 1  # x_T was divided and multiplied
    assert np.abs(sample(order[::-1], own[::-1])[::-1] - plain).max() <= 1
    sevens = sample(7, eps)
    np.testing.assert_array_equal(sevens, sample([7] * COUNT, eps))
    assert np.any(sevens != sample(6, eps)) and np.any(sample(order, eps) != plain)


def test_what_does_not_fit_the_network_is_refused(opened, tmp_path):
    params = opened.params()

    def said(**given):
        return refusal(opened.sample, params, 'onestep', COUNT, **given)

    assert 'from 0 to 9; got 10' in said(labels=10)
    assert 'or 4 of them' in said(labels=[1, 2]) and 'got 1.5' in said(labels=1.5)
    assert '(4, 8, 8, 1), got shape (4, 8, 8)' in said(noise=np.zeros((4, 8, 8)))
    assert 'finite' in said(noise=np.full((4, 8, 8, 1), np.nan))
    assert 'count must be' in refusal(opened.sample, params, 'onestep', 0)
    assert 'has no step 2' in refusal(opened.sample_each, [0, 2])
    assert 'from 0 to 9; got -1' in said(labels=-1)

    images = np.zeros((2, 8, 8, 1), np.float32)
    assert 'in [0.002, 80]; got 90' in refusal(opened.denoise, params, images, 90.0, 1)
    assert 'got shape (2, 8, 8)' in refusal(opened.denoise, params, images[..., 0], 1.0, 1)
    assert '10 classes' in refusal(opened.denoise, params, images, 1.0)
    config = tiny.get_config('edm')
    config.class_conditional = False
    free = untrained_run(tmp_path / 'free', config, steps=(1,), card=DIGITS)
    assert 'no classes' in refusal(free.denoise, free.params(), images, 1.0, labels=1)
    assert free.denoise(free.params(), images, 1.0).shape == images.shape


def test_denoise_is_the_denoiser_of_the_objective(opened):
    params, rng = opened.params(), np.random.default_rng(0)
    x = rng.normal(size=(3, 8, 8, 1)).astype(np.float32)
    labels, t = np.array([1, 5, 9], np.int32), np.array([0.5, 2, 70], np.float32)
    found = opened.denoise(params, x, t, labels)
    expected = jax.jit(opened.parts.objective.denoise)(params, x, t, labels)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    one = opened.denoise(params, x, 0.5, 1)
    np.testing.assert_allclose(one[0], found[0], rtol=1e-5, atol=1e-6)
    assert np.abs(one[1:] - found[1:]).max() > 1e-4
