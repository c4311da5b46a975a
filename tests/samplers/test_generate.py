"""Samples depend on seed and index alone, whatever the batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax import samplers
from cm_jax.core.process import expand
from cm_jax.samplers import GenerativeModel
from tests.helpers.samplers import RF, SHAPE, VE


def generate(spec, indices, *, p=VE, num_classes=0, seed=3):
    sampler = samplers.build(spec, p)

    def denoise(params, x, t, label):
        t = t[:, None, None, None]
        shift = 0 if label is None else label[:, None, None, None]
        return (jnp.sin(x) + shift) / (1 + t)

    def program(seed, indices):
        model = GenerativeModel(denoise, p, SHAPE, num_classes)
        return samplers.generate(sampler, model, (), seed, indices)

    return np.asarray(jax.jit(program)(seed, jnp.asarray(indices)))


@pytest.mark.parametrize(
    'spec, num_classes', [('multistep@80,10,1', 3), ('heun@4', 0), ('churn@4,S_churn=2', 0)]
)
def test_samples_do_not_depend_on_the_batch_size_or_order(spec, num_classes):
    whole = generate(spec, range(8), num_classes=num_classes)
    halves = [generate(spec, range(i, i + 4), num_classes=num_classes) for i in (0, 4)]
    np.testing.assert_array_equal(whole, np.concatenate(halves))
    order = [5, 2, 7, 0]
    np.testing.assert_array_equal(whole[order], generate(spec, order, num_classes=num_classes))


def test_samples_of_another_index_or_seed_differ():
    one, other = generate('multistep@80,1', range(8)), generate('multistep@80,1', range(8), seed=4)
    images = np.concatenate([one, other]).reshape(16, -1)
    assert len(np.unique(images, axis=0)) == 16
    assert len(np.unique(images)) == images.size


@pytest.mark.parametrize('p', [VE, RF], ids=['ve', 'rf'])
def test_noise_is_standard_normal_times_the_prior_std(p):
    sampler = samplers.build('onestep', p)
    model = GenerativeModel(lambda params, x, t, label: x, p, SHAPE, 0)
    seen = samplers.generate(sampler, model, (), 0, jnp.arange(1000))
    n = seen.size
    assert abs(np.mean(seen)) < 4 * p.prior_std / np.sqrt(n)
    assert abs(np.std(seen) / p.prior_std - 1) < 4 / np.sqrt(2 * n)


def test_labels_go_round_the_classes():
    sampler = samplers.build('onestep', VE)
    seen = []
    model = GenerativeModel(lambda params, x, t, label: seen.append(label) or x, VE, SHAPE, 3)
    samplers.generate(sampler, model, (), 0, jnp.array([0, 1, 2, 3, 4, 11]))
    np.testing.assert_array_equal(seen[0], [0, 1, 2, 0, 1, 2])


def test_levels_can_be_given_to_a_program_that_is_compiled_once():
    traced = []

    def denoise(x, t):
        traced.append(x.shape)
        return jnp.sin(x) / (1 + t[:, None, None, None])

    x, keys = jnp.ones((2, *SHAPE)), jax.random.split(jax.random.key(0), 2)
    sampler = samplers.build('multistep@80,1', VE)
    program = jax.jit(lambda ts: samplers.at_levels(sampler, ts).sample(denoise, x, keys))
    for level in (0.5, 3.0):
        other = samplers.build(f'multistep@80,{level}', VE)
        np.testing.assert_allclose(
            program(np.float32([80, level])), other.sample(denoise, x, keys), rtol=1e-5
        )
    once = len(traced)
    program(np.float32([80, 7]))
    assert len(traced) == once


def test_samples_without_a_loop_are_the_samples_and_call_the_network_once_an_evaluation():
    calls: list[tuple] = []

    def denoise(params, x, t, label):
        calls.append(x.shape)
        return params * jnp.tanh(x) / (1 + 0.01 * expand(t, x))

    model = GenerativeModel(denoise, VE, SHAPE, 0)
    for spec in (
        *(
            'onestep',
            'multistep@80,1,0.5',
            'multistep@80,1,0.5,clip',
            'heun@3',
            'heun@3,clip',
            'euler@3',
            'adams3@4',
        ),
        *('dpm3@4', 'dpm3@4,official', 'dpm2s@5', 'dpm3s@7', 'churn@3,S_churn=1'),
    ):
        sampler = samplers.build(spec, VE)
        expected = samplers.generate(sampler, model, 0.7, 3, jnp.arange(4))
        calls.clear()
        found = samplers.generate(sampler, model, 0.7, 3, jnp.arange(4), unroll=True)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6, err_msg=spec)
        assert calls == [(4, *SHAPE)] * sampler.evaluations, spec


def test_clip_shows_a_sampler_estimates_within_minus_1_and_1():
    """For each sampler with arguments it is what sampling with the clipped denoiser gives."""
    x, keys = (
        jax.random.normal(jax.random.key(0), (5, *SHAPE)),
        jax.random.split(jax.random.key(1), 5),
    )
    denoise = lambda x, t: 2 * jnp.tanh(x)  # noqa: E731
    clipped = lambda x, t: jnp.clip(denoise(x, t), -1, 1)  # noqa: E731
    for spec in ('multistep@80,1', 'heun@3', 'ddim@3', 'dpm3@4,official', 'churn@3,S_churn=1'):
        plain, clips = (samplers.build(each, VE) for each in (spec, f'{spec},clip'))
        assert clips.clips and clips.levels == plain.levels and clips.options == plain.options
        found = clips.sample(denoise, 80 * x, keys)
        np.testing.assert_array_equal(found, plain.sample(clipped, 80 * x, keys), err_msg=spec)
        assert np.abs(found - plain.sample(denoise, 80 * x, keys)).max() > 0.1, spec
