"""The closed form that samplers and objectives are tested with rests on the definitions alone."""

import jax
import jax.numpy as jnp
import numpy as np

from cm_jax.core import ode, process
from tests.helpers.gaussian import DATA, MEAN, STD, each_process, points


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
