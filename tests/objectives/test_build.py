"""What building an objective refuses: names, teachers, settings out of range."""

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


@pytest.mark.parametrize('key', ['sigma_data', 'p_std', 'rho'])
@pytest.mark.parametrize('value', [0.0, -7.0, float('nan')])
def test_what_must_be_positive_is_refused_otherwise(key, value):
    settings = {'name': 'ict', 'sigma_data': 0.5, 'total_steps': 8, key: value}
    with pytest.raises(UserError, match=rf'config\.objective\.{key} must be > 0, got {value}'):
        build_objective(settings, dropped_net, VE)


def test_unknown_objective_lists_those_there_are():
    with pytest.raises(
        UserError,
        match=r"unknown objective 'etc' .*legal: catch_up, cd, ct, ect, edm, flow, ict, one_step, pd",
    ):
        build_objective({'name': 'etc'}, dropped_net, VE)
    with pytest.raises(UserError, match=r'unknown objective None; legal: '):
        build_objective({}, dropped_net, VE)


@pytest.mark.parametrize(
    'name, settings, message',
    [
        ('ct', {'total_steps': 0}, 'total_steps >= 1'),
        ('ct', {'s0': 1}, '2 <= s0 <= s1'),
        ('ct', {'mu0': 1.0}, '0 < mu0 < 1'),
        ('ct', {'distance': 'l3'}, "unknown distance 'l3'"),
        ('ict', {'s1': 5}, '1 <= s0 <= s1'),
        ('ict', {'c': -1.0}, 'c >= 0'),
        ('cd', {'levels': 1}, 'levels >= 2'),
        ('cd', {'solver': 'rk4'}, "unknown solver 'rk4'.*legal: euler, heun"),
        ('cd', {'target_ema': 1.0}, '0 <= target_ema < 1'),
        ('pd', {'start_steps': 12}, 'a power of 2, >= 2, got .*start_steps=12'),
    ],
)
def test_settings_out_of_range_are_refused(name, settings, message):
    with pytest.raises(UserError, match=message):
        build(name, **settings)
