"""Sampling with a flow map: on Gaussian data every walk is exact; one jump is onestep; refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax import samplers
from cm_jax.errors import UserError
from cm_jax.generate import check_sampler
from cm_jax.samplers import GenerativeModel
from tests.helpers.gaussian import DATA, PROCESSES, points
from tests.helpers.samplers import RF, VE


def of_gaussian(p, x, t, r, label=None):
    return DATA.solve(p, x, t, r) + (0 if label is None else label[:, None])


def model(p, classes=0, jump=True):
    flow_map = lambda params, x, t, r, label=None, key=None: of_gaussian(p, x, t, r, label)  # noqa: E731
    denoise = lambda params, x, t, label=None, key=None: flow_map(params, x, t, 0 * t, label)  # noqa: E731
    return GenerativeModel(denoise, p, (1,), classes, jump=flow_map if jump else None)


@pytest.mark.parametrize('name', PROCESSES)
def test_every_walk_of_an_exact_flow_map_ends_at_its_path_s_end(name):
    p = PROCESSES[name]
    x = jnp.float32(points(p, p.t_max))
    keys = jax.random.split(jax.random.key(0), len(x))
    exact = DATA.consistency(p, x, jnp.full(len(x), p.t_max))
    for spec in ('jump@1', 'jump@4', f'jump@{p.t_max:g},{p.t_max / 3:g}'):
        for unroll in (False, True):
            sampler = samplers.build(spec, p)
            found = sampler.sample(lambda x, t, r: DATA.solve(p, x, t, r), x, keys, unroll=unroll)
            np.testing.assert_allclose(found, exact, atol=2e-5)


def test_levels_are_equal_parts_or_those_that_are_written():
    assert samplers.build('jump@1', RF).levels == (1.0,)
    np.testing.assert_allclose(samplers.build('jump@4', RF).levels, (1, 0.75, 0.5, 0.25))
    assert samplers.build('jump@1,0.4', RF).levels == (1.0, 0.4)


def test_one_jump_is_onestep_with_labels_and_guidance_too():
    indices = jnp.arange(6)
    for classes, suffix in ((0, ''), (3, ''), (3, '+cfg1.5')):
        found = [
            samplers.generate(samplers.build(spec + suffix, RF), model(RF, classes), (), 0, indices)
            for spec in ('jump@1', 'onestep')
        ]
        np.testing.assert_array_equal(*found)


def test_wrong_texts_and_methods_without_a_flow_map_are_refused():
    for spec, message in (
        ('jump', 'write jump@n'),
        ('jump@0.5', 'write jump@n'),
        ('jump@0.9,0.4', r'must start at t_max = 1'),
        ('jump@1,1', 'must descend strictly'),
        ('jump@2,clip', 'takes neither clip nor'),
        ('jump@2+auto1.5=runs/small', 'takes neither clip nor'),
    ):
        with pytest.raises(UserError, match=message):
            samplers.build(spec, RF)
    with pytest.raises(UserError, match="'jump@2' needs a method that learns a flow map"):
        check_sampler('jump@2', model(VE, jump=False))
    with pytest.raises(UserError, match='needs a method that learns a flow map'):
        sampler = samplers.build('jump@2', VE)
        samplers.generate(sampler, model(VE, jump=False), (), 0, jnp.arange(2))
