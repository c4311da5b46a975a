"""What building an objective refuses: names, teachers, settings that contradict each other."""

import jax
import jax.numpy as jnp
import pytest

from cm_jax.errors import UserError
from cm_jax.objectives import build as build_objective
from tests.helpers.consistency import build
from tests.helpers.objectives import VE, dropped_net, make_batch, make_params


def test_a_teacher_is_refused_where_none_is_taken_and_missed_where_one_is():
    with pytest.raises(UserError, match="objective 'ict' takes no teacher"):
        build_objective({'name': 'ict'}, dropped_net, VE, lambda *a: a)
    objective = build_objective({'name': 'cd', 'sigma_data': 0.5}, dropped_net, VE)
    with pytest.raises(UserError, match=r'config\.teacher\.workdir is not set'):
        objective.loss(make_params(), (), (), make_batch(), jax.random.key(0), jnp.int32(0))


def test_unknown_objective_lists_those_there_are():
    with pytest.raises(
        UserError,
        match=r"unknown objective 'etc' .*legal: catch_up, cd, ct, ect, edm, flow, ict, mean_flow, "
        'one_step, pd',
    ):
        build_objective({'name': 'etc'}, dropped_net, VE)
    with pytest.raises(UserError, match=r'unknown objective None; legal: '):
        build_objective({}, dropped_net, VE)


@pytest.mark.parametrize(
    'name, settings, message',
    [
        ('ct', {'s0': 151}, 's0 <= s1, got s0=151, s1=150'),
        ('ct', {'distance': 'l3'}, "unknown distance 'l3'"),
        ('ict', {'s1': 5}, 's0 <= s1, got s0=10, s1=5'),
        ('cd', {'solver': 'rk4'}, "unknown solver 'rk4'.*legal: euler, heun"),
        ('pd', {'start_steps': 12}, 'start_steps must be a power of 2, got 12'),
    ],
)
def test_settings_that_do_not_fit_are_refused(name, settings, message):
    with pytest.raises(UserError, match=message):
        build(name, **settings)
