"""Gaussian data, for which the denoiser, the ODE's solution and the consistency function are known.

Data N(m, s^2) in each value, x_t = a x0 + t eps, so x_t ~ N(a m, a^2 s^2 + t^2) and

    D(x, t) = m + a s^2 (x - a m) / (a^2 s^2 + t^2)
    x(u) = a(u) m + sqrt((a(u)^2 s^2 + u^2) / (a(t)^2 s^2 + t^2)) (x(t) - a(t) m)

is the solution of dx/dt = (x - D) / t through x(t), and x(0) is the consistency function.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax import samplers
from cm_jax.core import ode, process
from cm_jax.core.process import expand
from cm_jax.samplers import _dpm_solver

MEAN, STD = 0.3, 0.5
PROCESSES = {'ve': process.build('ve', 0.002, 80.0), 'rf': process.build('rf', 1e-3, 1.0)}
each_process = pytest.mark.parametrize('p', PROCESSES.values(), ids=PROCESSES)


class Gaussian(NamedTuple):
    """Data N(mean, std^2) in each value."""

    mean: float = MEAN
    std: float = STD

    def variance(self, p, t):
        return p.signal(t) ** 2 * self.std**2 + t**2

    def denoise(self, p, x, t):
        pull = expand(p.signal(t) * self.std**2 / self.variance(p, t), x)
        return self.mean + pull * (x - expand(p.signal(t), x) * self.mean)

    def solve(self, p, x, t, u):
        """x(u) on the path through x(t) = x."""
        ratio = jnp.sqrt(self.variance(p, u) / self.variance(p, t))
        away = x - expand(p.signal(t), x) * self.mean
        return expand(p.signal(u), x) * self.mean + expand(ratio, x) * away

    def consistency(self, p, x, t):
        return self.solve(p, x, t, jnp.zeros_like(t))


DATA = Gaussian()


def measured_order(errors, ns):
    """The slope of log error against log 1/n."""
    return -np.polyfit(np.log(ns), np.log(errors), 1)[0]


def points(p, t, count=64):
    """Values of x_t, spread like the marginal, [count, 1] float64."""
    z = np.random.default_rng(0).standard_normal((count, 1))
    a = float(p.signal(jnp.asarray(t)))
    return jnp.asarray(a * MEAN + np.sqrt(a**2 * STD**2 + t**2) * z)


# The closed form itself, so that what follows rests on the definitions alone


@each_process
def test_denoiser_is_the_mean_of_the_data_given_the_noisy_value(p):
    """By regression: E[x0 | x_t] is linear here, and least squares finds it."""
    rng = np.random.default_rng(1)
    x0 = MEAN + STD * rng.standard_normal((200_000, 1))
    t = 0.7
    x_t = process.perturb(p, x0, rng.standard_normal(x0.shape), np.full(len(x0), t))
    slope, offset = np.polyfit(np.asarray(x_t)[:, 0], x0[:, 0], 1)
    x = np.linspace(-2, 2, 5)[:, None]
    found = DATA.denoise(p, x, jnp.full(5, t))
    np.testing.assert_allclose(found, slope * x + offset, atol=5e-3)


@each_process
def test_solution_has_the_slope_of_the_probability_flow_ode(p):
    with jax.enable_x64(True):
        velocity = ode.pf_ode(lambda x, t: DATA.denoise(p, x, t))
        for t in np.geomspace(p.t_min, 0.999 * p.t_max, 7):
            x = points(p, t)
            ts = jnp.full(len(x), t)
            ahead, behind = (DATA.solve(p, x, ts, ts * (1 + h)) for h in (1e-5, -1e-5))
            slope = (ahead - behind) / (2e-5 * t)
            np.testing.assert_allclose(velocity(x, ts), slope, rtol=1e-6, atol=1e-6)


@each_process
def test_solution_keeps_the_marginals(p):
    """Pushed along the ODE from t to u, N(a m, var) becomes the marginal at u."""
    t, u = jnp.full(2, 0.9 * p.t_max), jnp.full(2, 0.05)
    spread = jnp.sqrt(DATA.variance(p, t))[:, None]
    x = p.signal(t)[:, None] * MEAN + spread * jnp.array([[1.0], [-1.0]])
    found = DATA.solve(p, x, t, u)
    np.testing.assert_allclose(jnp.mean(found), p.signal(u)[0] * MEAN, rtol=1e-5)
    np.testing.assert_allclose(jnp.std(found), jnp.sqrt(DATA.variance(p, u))[0], rtol=1e-5)


# Solvers


@each_process
@pytest.mark.parametrize('step, expected', [(ode.euler, 1), (ode.heun, 2)])
def test_integrate_has_the_solvers_order(p, step, expected):
    high, low = (10.0, 0.5) if p.name == 've' else (1.0, 0.1)
    ns = np.array([40, 80, 160, 320])
    with jax.enable_x64(True):
        x = points(p, high)
        exact = DATA.solve(p, x, jnp.full(len(x), high), jnp.full(len(x), low))
        velocity = ode.pf_ode(lambda x, t: DATA.denoise(p, x, t))
        run = jax.jit(lambda ts: ode.integrate(step, velocity, x, ts))
        errors = [np.abs(run(jnp.linspace(high, low, n + 1)) - exact).max() for n in ns]
    assert abs(measured_order(errors, ns) - expected) < 0.07, errors


@pytest.mark.parametrize('step, expected', [(ode.euler, 1), (ode.heun, 2)])
def test_integrate_has_the_solvers_order_where_the_ode_is_not_linear(step, expected):
    """dx/dt = -t x^2, x = 1 / (1/x(0) + t^2/2), upwards in time."""
    ns = np.array([20, 40, 80, 160])
    with jax.enable_x64(True):
        x = jnp.linspace(0.5, 2, 8)[:, None]
        run = jax.jit(lambda ts: ode.integrate(step, lambda x, t: -expand(t, x) * x**2, x, ts))
        errors = [np.abs(run(jnp.linspace(0, 2, n + 1)) - 1 / (1 / x + 2)).max() for n in ns]
    assert abs(measured_order(errors, ns) - expected) < 0.07, errors


def test_adams_weights_of_equal_steps_are_the_classical_ones():
    """Over 12: Adams-Bashforth's, and before them Euler's, and Heun's rule with hindsight."""
    with jax.enable_x64(True):
        ts = jnp.linspace(2.0, 0.0, 6)
        h = -0.4 / 12
        two = [[12, 0]] + 4 * [[18, -6]]
        np.testing.assert_allclose(ode.adams_weights(ts, 2), h * np.array(two), atol=1e-15)
        three = [[12, 0, 0], [24, -12, 0]] + 3 * [[23, -16, 5]]
        np.testing.assert_allclose(ode.adams_weights(ts, 3), h * np.array(three), atol=1e-15)
        for order in (2, 3):
            np.testing.assert_allclose(ode.adams_weights(ts[:2], order)[0, 0], -0.4)
    with pytest.raises(ValueError, match='order 2 or 3, got 4'):
        ode.adams_weights(ts, 4)


@pytest.mark.parametrize('order', [2, 3])
def test_adams_weights_integrate_polynomials_whatever_the_steps(order):
    """Of degree below the order, from the step on that has as many velocities."""
    with jax.enable_x64(True):
        ts = jnp.cumsum(jnp.asarray(np.random.default_rng(0).uniform(0.1, 1, 9)))
        weights = np.asarray(ode.adams_weights(ts, order))
    ts = np.asarray(ts)
    for i in range(order - 1, len(ts) - 1):
        for power in range(order):
            values = ts[i - np.arange(order)] ** power
            integral = (ts[i + 1] ** (power + 1) - ts[i] ** (power + 1)) / (power + 1)
            np.testing.assert_allclose(weights[i] @ values, integral, rtol=1e-11)


@pytest.mark.parametrize('order', [2, 3])
def test_multistep_has_the_solvers_order_where_the_ode_is_not_linear(order):
    """As for one-step solvers; the steps grow to twice their size on the way."""
    ns = np.array([40, 80, 160, 320])
    with jax.enable_x64(True):
        x = jnp.linspace(0.5, 2, 8)[:, None]

        @jax.jit
        def run(ts):
            weights = ode.adams_weights(ts, order)
            return ode.multistep(lambda x, t: -expand(t, x) * x**2, x, ts[:-1], weights)

        grids = [jnp.linspace(0, 1, n + 1) for n in ns]
        errors = [np.abs(run(u + u**2 / 2 + u / 2) - 1 / (1 / x + 2)).max() for u in grids]
    assert abs(measured_order(errors, ns) - order) < 0.1, errors


@each_process
@pytest.mark.parametrize(
    'name, expected', [('euler', 1), ('ddim', 1), ('heun', 2), ('adams2', 2), ('adams3', 3)]
)
def test_ode_samplers_converge_at_their_order(p, name, expected):
    """On their own grid from t_max to 0. t_min is small, so that the last step's error, which does
    not depend on n, does not show."""
    p = p._replace(t_min=1e-4 if p.name == 've' else 1e-5)
    ns = np.array([32, 64, 128, 256]) * (4 if expected == 3 and p.name == 've' else 1)
    with jax.enable_x64(True):
        x = points(p, p.t_max)
        keys = jax.random.split(jax.random.key(0), len(x))
        exact = DATA.consistency(p, x, jnp.full(len(x), p.t_max))
        errors = []
        for n in ns:
            sample = jax.jit(samplers.build(f'{name}@{n}', p).sample, static_argnums=0)
            found = sample(lambda x, t: DATA.denoise(p, x, t), x, keys)
            errors.append(np.abs(found - exact).max())
    assert abs(measured_order(errors, ns) - expected) < 0.1, errors


@pytest.mark.parametrize('name', ['euler', 'ddim', 'heun', 'adams2', 'adams3'])
@each_process
def test_one_level_of_an_ode_sampler_is_one_denoising_step(p, name):
    x, t = points(p, p.t_max), jnp.full(64, p.t_max)
    keys = jax.random.split(jax.random.key(0), 64)
    found = samplers.build(f'{name}@1', p).sample(lambda x, t: DATA.denoise(p, x, t), x, keys)
    np.testing.assert_allclose(found, DATA.denoise(p, x, t), rtol=1e-5, atol=1e-5)


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


def test_cuds_three_step_solver_has_order_2():
    """Where adams3 has 3: see samplers/cud3.py."""
    p = PROCESSES['rf']._replace(t_min=1e-5)
    ns = np.array([32, 64, 128, 256])
    with jax.enable_x64(True):
        x = points(p, p.t_max)
        keys = jax.random.split(jax.random.key(0), len(x))
        exact = DATA.consistency(p, x, jnp.full(len(x), p.t_max))
        errors = []
        for n in ns:
            sample = jax.jit(samplers.build(f'cud3@{n}', p).sample, static_argnums=0)
            errors.append(np.abs(sample(lambda x, t: DATA.denoise(p, x, t), x, keys) - exact).max())
    assert abs(measured_order(errors, ns) - 2) < 0.1, errors


# The multistep sampler


@each_process
def test_multistep_of_the_exact_consistency_function_reproduces_the_data(p):
    """Whatever the levels: each ends with N(m, s^2), up to what noise at t_max still shows of m."""
    n, shape = 40_000, (2, 2, 1)
    levels = '80,0.8' if p.name == 've' else '1,0.6,0.2'
    sample = samplers.build(f'multistep@{levels}', p).sample
    key_x, key_z = jax.random.split(jax.random.key(0))
    x = p.prior_std * jax.random.normal(key_x, (n, *shape))
    sample = jax.jit(sample, static_argnums=0)
    x0 = sample(lambda x, t: DATA.consistency(p, x, t), x, jax.random.split(key_z, n))
    x0 = np.asarray(x0, np.float64).reshape(-1)
    bias = STD * MEAN / p.t_max * STD if p.name == 've' else 0
    assert abs(x0.mean() - MEAN) < bias + 4 * STD / np.sqrt(x0.size)
    assert abs(x0.std() - STD) < 4 * STD / np.sqrt(2 * x0.size)
    assert abs(np.mean((x0 - x0.mean()) ** 3)) < 4 * STD**3 * np.sqrt(6 / x0.size)


@each_process
def test_multistep_noise_is_fresh_at_each_level_and_differs_between_examples(p):
    """With D = 0 the network is shown the noise alone."""
    levels = (p.t_max, 0.8, 0.6)
    sampler = samplers.build('multistep@' + ','.join(map(str, levels)), p)
    seen = []

    def denoise(x, t):
        seen.append(x)
        return jnp.zeros_like(x)

    x = jnp.ones((50, 4, 4, 1))
    with jax.disable_jit():
        sampler.sample(denoise, x, jax.random.split(jax.random.key(0), 50))
    np.testing.assert_array_equal(seen[0], x)
    noise = np.array([seen[1] / 0.8, seen[2] / 0.6]).reshape(100, 16)  # of 2 levels x 50 examples
    np.testing.assert_allclose(noise.std(), 1, atol=0.1)
    correlation = np.abs(np.corrcoef(noise) - np.eye(100))
    assert correlation.max() < 0.95


@each_process
def test_multistep_with_one_level_is_onestep(p):
    x = points(p, p.t_max)
    keys = jax.random.split(jax.random.key(0), len(x))
    denoise = lambda x, t: DATA.consistency(p, x, t)  # noqa: E731
    one = samplers.build('onestep', p)
    other = samplers.build(f'multistep@{p.t_max:g}', p)
    np.testing.assert_array_equal(one.sample(denoise, x, keys), other.sample(denoise, x, keys))
    np.testing.assert_array_equal(one.sample(denoise, x, keys), denoise(x, jnp.full(64, p.t_max)))
    assert one.levels == other.levels and one.evaluations == other.evaluations == 1
