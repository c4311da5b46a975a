"""ODE solvers: the order of each, and the weights of Adams methods."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax.core import ode, process
from cm_jax.core.process import expand
from tests.helpers.gaussian import DATA, each_process, measured_order, points


def test_integrate_passes_through_every_time_in_order():
    step = lambda v, x, t, s: x * 10 + process.expand(t - s, x)  # noqa: E731
    found = ode.integrate(step, None, jnp.zeros((2, 1)), np.array([6.0, 3.0, 1.0, 0.0]))
    np.testing.assert_array_equal(found, [[321.0], [321.0]])
    np.testing.assert_array_equal(ode.integrate(step, None, jnp.ones((2, 1)), np.array([6.0])), 1)


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
