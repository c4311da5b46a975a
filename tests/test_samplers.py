"""Samplers: their spelling, what they cost, and samples that depend on (seed, index) alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax import samplers
from cm_jax.core import process
from cm_jax.errors import UserError

VE = process.build('ve', 0.002, 80.0)
RF = process.build('rf', 1e-3, 1.0)
SHAPE = (4, 4, 2)
SPECS = ('onestep', 'multistep@80,0.8', 'multistep@80,10,1,0.002', 'euler@7', 'heun@1', 'heun@18')


def test_every_sampler_is_in_the_table():
    assert {spec.partition('@')[0] for spec in SPECS} == set(samplers.names())


@pytest.mark.parametrize('spec', SPECS)
def test_evaluations_are_those_that_it_spends(spec):
    calls = []

    def denoise(x, t):
        jax.debug.callback(lambda: calls.append(1))
        return x / (1 + t[:, None, None, None])

    sampler = samplers.build(spec, VE)
    x, keys = jnp.ones((2, *SHAPE)), jax.random.split(jax.random.key(0), 2)
    jax.block_until_ready(sampler.sample(denoise, x, keys))
    jax.effects_barrier()
    assert len(calls) == sampler.evaluations


def test_heun_18_is_edms_35_evaluations():
    assert samplers.build('heun@18', VE).evaluations == 35


@pytest.mark.parametrize('spec', SPECS)
def test_levels_descend_from_t_max_to_t_min_at_the_lowest(spec):
    sampler = samplers.build(spec, VE)
    assert sampler.spec == spec
    assert sampler.levels[0] == pytest.approx(VE.t_max)
    assert np.all(np.diff(sampler.levels) < 0)
    assert all(level == 0 or level >= VE.t_min * (1 - 1e-6) for level in sampler.levels)


@pytest.mark.parametrize('name', ['euler', 'heun'])
def test_ode_samplers_keep_to_any_legal_process(name):
    legal = [('ve', low, high) for low in (1e-5, 1e-4, 0.02) for high in (10.0, 20.0, 80.0, 157.0)]
    legal += [('rf', low, high) for low in (1e-5, 1e-4, 0.02) for high in (0.99, 0.999, 1.0)]
    for p in (process.build(*one) for one in legal):
        for n in (1, 2, 18, 40):
            levels = samplers.build(f'{name}@{n}', p).levels
            assert len(levels) == n + 1 and levels[-1] == 0
            assert max(levels) <= p.t_max * (1 + 1e-6) and min(levels[:-1]) >= p.t_min * (1 - 1e-6)


@pytest.mark.parametrize(
    'spec, message',
    [
        ('', "unknown sampler ''; legal: euler, heun, multistep, onestep"),
        ('ddim@10', "unknown sampler 'ddim'.*legal: euler, heun, multistep, onestep"),
        ('onestp', r"unknown sampler 'onestp' \(did you mean 'onestep'"),
        ('onestep@3', "onestep takes no arguments, got '3'"),
        ('heun', 'write heun@n with n >= 1'),
        ('heun@', 'write heun@n with n >= 1'),
        ('heun@0', 'write heun@n with n >= 1'),
        ('heun@-3', 'write heun@n with n >= 1'),
        ('heun@x', 'write heun@n with n >= 1'),
        ('heun@2.5', 'write heun@n with n >= 1'),
        ('heun@²', 'write heun@n with n >= 1'),
        ('euler@0', 'write euler@n with n >= 1'),
        ('multistep', 'as multistep@80,0.8'),
        ('multistep@', 'as multistep@80,0.8'),
        ('multistep@80,,1', 'as multistep@80,0.8'),
        ('multistep@80;1', 'as multistep@80,0.8'),
        ('multistep@80,1,2', 'must descend strictly, got 80, 1, 2'),
        ('multistep@80,80', 'must descend strictly, got 80, 80'),
        ('multistep@80,1,1', 'must descend strictly, got 80, 1, 1'),
        ('multistep@81,1', r'must lie in \[0.002, 80\], got 81, 1'),
        ('multistep@80,0.001', r'must lie in \[0.002, 80\], got 80, 0.001'),
        ('multistep@80,0', r'must lie in \[0.002, 80\], got 80, 0'),
        ('multistep@0', r'must lie in \[0.002, 80\], got 0'),
        ('multistep@80,-1', r'must lie in \[0.002, 80\], got 80, -1'),
        ('multistep@nan', r'must lie in \[0.002, 80\], got nan'),
        ('multistep@80,nan', 'got 80, nan'),
        ('multistep@inf,1', r'must lie in \[0.002, 80\], got inf'),
        ('multistep@40,0.8', 'must start at t_max = 80, where the noise is, got 40, 0.8'),
    ],
)
def test_wrong_spec_is_one_line_with_what_is_legal(spec, message):
    with pytest.raises(UserError, match=message) as error:
        samplers.build(spec, VE)
    assert '\n' not in str(error.value)


# generate


def generate(spec, indices, *, p=VE, num_classes=0, seed=3):
    sampler = samplers.build(spec, p)

    def denoise(x, t, label):
        t = t[:, None, None, None]
        shift = 0 if label is None else label[:, None, None, None]
        return (jnp.sin(x) + shift) / (1 + t)

    def program(seed, indices):
        return samplers.generate(sampler, denoise, p.prior_std, SHAPE, num_classes, seed, indices)

    return np.asarray(jax.jit(program)(seed, jnp.asarray(indices)))


@pytest.mark.parametrize('spec, num_classes', [('multistep@80,10,1', 3), ('heun@4', 0)])
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
    seen = samplers.generate(
        sampler, lambda x, t, label: x, p.prior_std, SHAPE, 0, 0, jnp.arange(1000)
    )
    n = seen.size
    assert abs(np.mean(seen)) < 4 * p.prior_std / np.sqrt(n)
    assert abs(np.std(seen) / p.prior_std - 1) < 4 / np.sqrt(2 * n)


def test_labels_go_round_the_classes():
    sampler = samplers.build('onestep', VE)
    seen = []
    samplers.generate(
        sampler,
        lambda x, t, label: seen.append(label) or x,
        VE.prior_std,
        SHAPE,
        3,
        0,
        jnp.array([0, 1, 2, 3, 4, 11]),
    )
    np.testing.assert_array_equal(seen[0], [0, 1, 2, 0, 1, 2])
