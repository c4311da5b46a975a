"""DPM-Solver++: its orders on Gaussian data, and its weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax import samplers
from cm_jax.core import ode, precond, process
from cm_jax.samplers import _dpm_solver
from tests.helpers.gaussian import DATA, PROCESSES, measured_order, points

# Part of the way, from where both have a logSNR: over all of it, which is symmetric in lambda for
# Gaussian data, the leading errors of order 3 cancel.
HALF = {'ve': process.build('ve', 0.5, 80.0), 'rf': process.build('rf', 0.3, 0.99)}


@pytest.mark.parametrize('spacing', ['logsnr', 'karras'])
@pytest.mark.parametrize('order', [1, 2, 3])
@pytest.mark.parametrize('p', HALF.values(), ids=HALF)
def test_dpm_solvers_converge_at_their_order(p, order, spacing):
    """Equal steps of t on rectified flow are long in lambda at first, and the first of them, of order
    1, shows."""
    expected = min(order, 2) if (p.name, spacing) == ('rf', 'karras') else order
    ns = np.array([64, 128, 256])
    errors = [dpm_error(p, f'dpm{order}@{n},{spacing}') for n in ns]
    assert abs(measured_order(errors, ns) - expected) < 0.2, errors


@pytest.mark.parametrize('order', [1, 2, 3])
def test_dpm_solvers_start_where_there_is_no_signal(order):
    """lambda is -inf at t = 1."""
    ns = np.array([128, 256, 512])
    errors = [dpm_error(PROCESSES['rf'], f'dpm{order}@{n}') for n in ns]
    assert abs(measured_order(errors, ns) - order) < 0.2, errors


def test_dpm_solver_of_lower_order_at_the_end_still_converges():
    p, ns = HALF['ve'], np.array([32, 64, 128])
    errors = [dpm_error(p, f'dpm3@{n},lower_order_final') for n in ns]
    assert 1.8 < measured_order(errors, ns) < 2.6, errors


@pytest.mark.parametrize('spacing', ['logsnr', 'karras'])
@pytest.mark.parametrize('order', [2, 3])
@pytest.mark.parametrize('p', HALF.values(), ids=HALF)
def test_single_step_solvers_converge_at_their_order(p, order, spacing):
    """With as many evaluations as order 3 takes without a lower order in the middle of the way."""
    ns = 3 * np.array([32, 64, 128]) + 2 if order == 3 else np.array([64, 128, 256])
    errors = [dpm_error(p, f'dpm{order}s@{n},{spacing}') for n in ns]
    assert abs(measured_order(errors, ns) - order) < 0.3, errors


def test_official_order_3_has_order_2_and_its_lower_orders_are_ours():
    ns = np.array([256, 512, 1024])
    errors = [dpm_error(HALF['ve'], f'dpm3@{n},official') for n in ns]
    assert abs(measured_order(errors, ns) - 2) < 0.2, errors
    ts = jnp.geomspace(80, 0.002, 10)
    ours, official = (_dpm_solver.weights(HALF['ve'], ts, 3, official=o) for o in (False, True))
    np.testing.assert_array_equal(ours[:2], official[:2])
    # The weights of the public code at 9 steps of logSNR.
    np.testing.assert_allclose(official[-1], [1.385, -0.974, 0.281], atol=5e-4)


def test_official_dpm_solver_ends_where_the_papers_code_does(recorded):
    arrays, config = recorded('objective_fewstep')
    assert config['cmt']['steps'] == 16 and config['cmt']['spacing'] == 'uniform in logSNR'
    assert 'F2(x_in, c) = 0.8 sin(1.7 x_in + 0.1) + 0.1 c x_in' in config['edm_net']

    def net(params, x, cond, label=None, key=None):
        return 0.8 * jnp.sin(1.7 * x + 0.1) + 0.1 * cond[:, :, None, None] * x

    edm = precond.precondition(net, lambda t: precond.edm_scalings(t, 0.5))
    sampler = samplers.build('dpm3@16,official,lower_order_final', PROCESSES['ve'])
    np.testing.assert_allclose(sampler.levels, arrays['cmt/levels'], rtol=1e-12)
    trajectory = []
    with jax.enable_x64(True):
        x, ts = jnp.asarray(arrays['cmt/x_T_nchw']), np.array(sampler.levels)
        keys = jax.random.split(jax.random.key(0), len(x))
        denoise = lambda x, t: trajectory.append(x) or edm((), x, t)  # noqa: E731
        end = sampler.sample(denoise, x, keys, ts, unroll=True)
    found = np.array([*trajectory, end])
    np.testing.assert_allclose(found, arrays['cmt/trajectory_nchw'], rtol=0, atol=1e-9)
    np.testing.assert_allclose(end, arrays['cmt/end_nchw'], rtol=0, atol=1e-9)


def test_the_official_solvers_end_where_lcscs_copy_of_them_does(recorded):
    """Single steps of both orders, and the multistep form with the settings of LCSC's configs."""
    arrays, config = recorded('dpm_solver')
    assert config['denoiser'] == 'D(x, t) = 0.8 sin(1.7 x / (1 + t)) + 0.03 ln t'

    def denoise(x, t):
        t = t[:, None]
        return 0.8 * jnp.sin(1.7 * x / (1 + t)) + 0.03 * jnp.log(t)

    specs = [name.removeprefix('end/') for name in arrays if name.startswith('end/')]
    assert {'dpm3@9,official', 'dpm2s@7', 'dpm3s@8', 'dpm3s@9', 'dpm3s@10'} < set(specs)
    with jax.enable_x64(True):
        x = jnp.asarray(arrays['x_T'])
        keys = jax.random.split(jax.random.key(0), len(x))
        for spec in specs:
            sampler = samplers.build(spec, PROCESSES['ve'])
            end = sampler.sample(denoise, x, keys, np.array(sampler.levels))
            np.testing.assert_allclose(end, arrays[f'end/{spec}'], rtol=0, atol=1e-12, err_msg=spec)


def dpm_error(p, spec):
    """How far a sampler ends from the closed form at t_min, at most."""
    with jax.enable_x64(True):
        x, sampler = points(p, p.t_max), samplers.build(spec, p)
        ends = np.float32([sampler.levels[0], sampler.levels[-1]]).astype(float)
        exact = DATA.solve(p, x, *(jnp.full(len(x), end) for end in ends))
        keys = jax.random.split(jax.random.key(0), len(x))
        found = jax.jit(lambda x: sampler.sample(lambda x, t: DATA.denoise(p, x, t), x, keys))(x)
        assert jnp.isfinite(found).all()
        return np.abs(found - exact).max()


@pytest.mark.parametrize('order, exact_degree', [(1, 0), (2, 0), (3, 2)])
def test_dpm_solver_is_exact_for_a_polynomial_in_lambda(order, exact_degree):
    """D = lambda^k needs k + 1 predictions, whatever the steps. Order 2 is algorithm 2's, whose
    weight of the slope is an approximation: exact for a constant alone."""
    p = PROCESSES['ve']
    ts = np.sort(np.random.default_rng(0).uniform(0.1, 5, 9))[::-1]
    lambdas = -np.log(ts)
    with jax.enable_x64(True):
        table = np.asarray(_dpm_solver.weights(p, jnp.asarray(ts), order))
    for i in range(2, len(ts) - 1):
        for k in range(exact_degree + 1):
            u = np.linspace(lambdas[i], lambdas[i + 1], 20_001)
            inside = np.trapezoid(np.exp(u - lambdas[i + 1]) * u**k, u)
            found = table[i] @ lambdas[i - np.arange(3)] ** k
            np.testing.assert_allclose(found, inside, rtol=1e-7)


def test_dpm_solver_of_order_2_is_algorithm_2_of_the_paper():
    """x = (s' / s) x - a' (e^-h - 1) ((1 + 1/(2r)) D_i - 1/(2r) D_{i-1}), r = h_{i-1} / h."""
    ts = np.array([5.0, 3.0, 1.0, 0.5])
    with jax.enable_x64(True):
        table = np.asarray(_dpm_solver.weights(PROCESSES['ve'], jnp.asarray(ts), 2))
    h = -np.diff(np.log(ts))
    for i in (1, 2):
        r, p1 = h[i - 1] / h[i], 1 - np.exp(-h[i])
        np.testing.assert_allclose(table[i], p1 * np.array([1 + 0.5 / r, -0.5 / r, 0]), rtol=1e-12)
    np.testing.assert_allclose(table[0], [1 - np.exp(-h[0]), 0, 0], rtol=1e-12)


def test_dpm_solver_of_order_1_takes_eulers_steps():
    p = PROCESSES['rf']
    x, keys = points(p, p.t_max), jax.random.split(jax.random.key(0), 64)
    sampler = samplers.build('dpm1@5', p)
    denoise = lambda x, t: DATA.denoise(p, x, t)  # noqa: E731
    expected = ode.integrate(ode.euler, ode.pf_ode(denoise), x, jnp.asarray(sampler.levels))
    np.testing.assert_allclose(sampler.sample(denoise, x, keys), expected, rtol=1e-4, atol=1e-5)


def test_lower_order_final_changes_the_last_steps_alone():
    p, ts = PROCESSES['ve'], jnp.geomspace(80, 0.002, 8)
    table, final = (_dpm_solver.weights(p, ts, 3, chosen) for chosen in (False, True))
    np.testing.assert_array_equal(table[:-2], final[:-2])
    np.testing.assert_array_equal((final != 0).sum(1), [1, 2, 3, 3, 3, 2, 1])
