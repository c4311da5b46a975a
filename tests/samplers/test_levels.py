"""The noise levels of every sampler, on either process."""

import numpy as np
import pytest

from cm_jax import samplers
from cm_jax.core import noise, process
from cm_jax.errors import UserError
from tests.helpers.samplers import RF, SPECS, VE, home


def test_levels_descend_from_t_max_to_t_min_at_the_lowest():
    for spec in SPECS:
        p = home(spec)
        sampler = samplers.build(spec, p)
        assert sampler.spec == spec
        assert sampler.levels[0] == pytest.approx(p.t_max), spec
        assert np.all(np.diff(sampler.levels) < 0), spec
        lowest = p.t_min * (1 - 1e-6)
        assert all(level == 0 or level >= lowest for level in sampler.levels), spec


@pytest.mark.parametrize('p', [VE, RF], ids=['ve', 'rf'])
def test_ddim_levels_are_every_second_one_of_twice_as_many(p):
    for n in (1, 2, 3, 8, 35, 512):
        coarse, fine = (samplers.build(f'ddim@{m}', p).levels for m in (n, 2 * n))
        assert coarse == fine[::2], n


def test_ddim_levels_are_edms_curve_at_even_parts():
    i = np.arange(6)
    expected = (80 ** (1 / 7) + i / 6 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    np.testing.assert_allclose(samplers.build('ddim@6', VE).levels, [*expected, 0], rtol=1e-6)


def test_steps_of_a_rectified_flow_are_equal():
    p = process.build('rf', 1e-5, 0.9)
    for name in ('euler', 'heun', 'adams2', 'adams3', 'cud3'):
        for n in (3, 8, 10):
            spec, expected = f'{name}@{n}', 0.9 * np.arange(n, -1, -1) / n
            levels = samplers.build(spec, p).levels
            np.testing.assert_allclose(levels, expected, atol=1e-15, err_msg=spec)


def test_a_rectified_flow_has_no_steps_that_start_below_t_min():
    assert samplers.build('euler@1000', RF).levels[-2] == pytest.approx(RF.t_min)
    with pytest.raises(
        UserError, match=r'1001 equal steps .* t_min = 0\.001 before 0: at most 1,000'
    ):
        samplers.build('euler@1001', RF)


def test_levels_by_index_are_those_of_the_commands_of_consistency_models():
    """`--ts 0,22,39 --steps 40` and the others; the last index is not evaluated."""
    for spec, second in (
        ('multistep@idx:0,22,39/40', 1.382),
        ('multistep@idx:0,106,200/201', 1.913),
        ('multistep@idx:0,11,17/18,clip', 0.585),
    ):
        np.testing.assert_allclose(samplers.build(spec, VE).levels, [80, second], rtol=1e-3)
    every = samplers.build('multistep@idx:0,1,2,3/4', VE).levels
    np.testing.assert_allclose(every, noise.karras_sigmas(4, 0.002, 80.0)[:3])
    np.testing.assert_allclose(samplers.build('multistep@idx:0,1,2/3', RF).levels, [1, 0.5005])


@pytest.mark.parametrize('p', [VE, RF._replace(t_max=0.99)], ids=['ve', 'rf'])
def test_levels_of_single_steps_are_equal_outside_and_inside(p):
    for spec, orders in (
        ('dpm3s@9', [3, 3, 2, 1]),
        ('dpm3s@10', [3, 3, 3, 1]),
        ('dpm3s@8', [3, 3, 2]),
        ('dpm2s@7', [2, 2, 2, 1]),
        ('dpm2s@8', [2, 2, 2, 2]),
        ('dpm3s@3', [2, 1]),
    ):
        levels = np.array(samplers.build(f'{spec},logsnr', p).levels)
        assert levels[0] == p.t_max and levels[-1] == p.t_min
        lambdas = np.log((1 - levels if p.name == 'rf' else 1) / levels)
        length = (lambdas[-1] - lambdas[0]) / len(orders)
        expected = np.repeat(length / np.array(orders), orders)
        np.testing.assert_allclose(np.diff(lambdas), expected, rtol=1e-8, err_msg=spec)


@pytest.mark.parametrize('p', [VE, RF._replace(t_max=0.99)], ids=['ve', 'rf'])
def test_logsnr_levels_have_equal_steps_of_the_log_signal_to_noise_ratio(p):
    levels = np.array(samplers.build('dpm3@9,logsnr', p).levels)
    assert levels[[0, -1]].tolist() == [p.t_max, p.t_min]
    signal = 1 - levels if p.name == 'rf' else 1
    steps = np.diff(np.log(signal / levels))
    np.testing.assert_allclose(steps, steps[0], rtol=1e-9)


def test_karras_levels_are_edms_grid_and_equal_steps_on_rectified_flow():
    found = samplers.build('dpm3@9,karras', VE).levels
    np.testing.assert_allclose(found, noise.karras_sigmas(10, 0.002, 80.0))
    np.testing.assert_allclose(samplers.build('dpm3@9', RF).levels, np.linspace(1, 1e-3, 10))
    assert samplers.build('dpm3@9', VE).levels == samplers.build('dpm3@9,logsnr', VE).levels


@pytest.mark.parametrize('name', ['euler', 'ddim', 'heun', 'adams2', 'adams3'])
def test_ode_samplers_keep_to_any_legal_process(name):
    legal = [('ve', low, high) for low in (1e-5, 1e-4, 0.02) for high in (10.0, 20.0, 80.0, 157.0)]
    legal += [('rf', low, high) for low in (1e-5, 1e-4, 0.02) for high in (0.99, 0.999, 1.0)]
    for p in (process.build(*one) for one in legal):
        for n in (1, 2, 18, 40):
            levels = samplers.build(f'{name}@{n}', p).levels
            assert len(levels) == n + 1 and levels[-1] == 0
            assert max(levels) <= p.t_max * (1 + 1e-6) and min(levels[:-1]) >= p.t_min * (1 - 1e-6)
