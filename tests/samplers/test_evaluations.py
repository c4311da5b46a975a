"""A sampler says how many evaluations of the network it spends."""

import jax
import jax.numpy as jnp

from cm_jax import samplers
from cm_jax.samplers import GenerativeModel
from tests.helpers.samplers import SHAPE, SPECS, VE, home


def test_every_sampler_is_in_the_table():
    assert {spec.partition('@')[0] for spec in SPECS} == set(samplers.names())


def test_evaluations_are_those_that_it_spends():
    calls = []

    def denoise(params, x, t, label, key=None):
        jax.debug.callback(lambda: calls.append(1))
        return x / (1 + t[:, None, None, None])

    def jump(params, x, t, r, label, key=None):
        return denoise(params, x, t - r, label)

    for spec in (*SPECS, 'heun@3+cfg1', 'heun@3+cfg1.5', 'onestep+cfg0', 'jump@2+cfg1.5'):
        calls.clear()
        p = home(spec)
        sampler = samplers.build(spec, p)
        model = GenerativeModel(denoise, p, SHAPE, 3, jump=jump)
        jax.block_until_ready(samplers.generate(sampler, model, (), 0, jnp.arange(2)))
        jax.effects_barrier()
        assert len(calls) == sampler.evaluations, spec


def test_heun_18_is_edms_35_evaluations():
    assert samplers.build('heun@18', VE).evaluations == 35
