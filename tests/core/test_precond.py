"""Preconditioning: unit variances, boundary conditions, float32 around a bfloat16 network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax.core import ode, precond, process
from cm_jax.core.process import expand
from tests.helpers.arrays import LEVELS, in_float64, normal
from tests.helpers.objectives import RF

SIGMA_DATA = 0.5


def test_edm_scalings_make_input_and_target_of_unit_variance():
    c = in_float64(lambda t: precond.edm_scalings(t, SIGMA_DATA), LEVELS)
    np.testing.assert_allclose(c.in_**2 * (SIGMA_DATA**2 + LEVELS**2), 1, rtol=1e-12)
    # The network's target is (x0 - skip x_t) / out, with x_t = x0 + t eps.
    target = (SIGMA_DATA**2 * (1 - c.skip) ** 2 + c.skip**2 * LEVELS**2) / c.out**2
    np.testing.assert_allclose(target, 1, rtol=1e-12)
    np.testing.assert_allclose(np.exp(4 * c.noise), LEVELS, rtol=1e-12)


def test_edm_skip_leaves_the_least_output():
    """Of all skips, EDM's has the least `out` that keeps the target at unit variance (appendix B.6)."""
    c = in_float64(lambda t: precond.edm_scalings(t, SIGMA_DATA), LEVELS)
    for shift in (-1e-3, 1e-3):
        skip = c.skip + shift
        assert np.all(SIGMA_DATA**2 * (1 - skip) ** 2 + skip**2 * LEVELS**2 > c.out**2)


@pytest.mark.parametrize('scalings', [precond.consistency_scalings, precond.boundary_scalings])
@pytest.mark.parametrize('t_min', [0.002, 0.003, 1e-5])
def test_boundary_condition_holds_exactly(scalings, t_min):
    x = normal(0, (4, 3, 3, 2))
    net = lambda params, x, cond, label, key: 1e3 * jnp.sin(x)  # noqa: E731
    denoise = precond.precondition(net, lambda t: scalings(t, SIGMA_DATA, t_min))
    for run in (denoise, jax.jit(denoise)):
        np.testing.assert_array_equal(run({}, x, jnp.full(4, t_min)), x)


def test_boundary_scalings_become_edms_as_t_min_vanishes():
    edm = in_float64(lambda t: precond.edm_scalings(t, SIGMA_DATA), LEVELS)
    errors = []
    for t_min in (1e-3, 1e-4, 1e-5):
        c = in_float64(
            lambda t, t_min=t_min: precond.boundary_scalings(t, SIGMA_DATA, t_min), LEVELS
        )
        np.testing.assert_array_equal(c.in_, edm.in_)
        np.testing.assert_array_equal(c.noise, edm.noise)
        errors.append(max(np.abs(c.skip - edm.skip).max(), np.abs(c.out - edm.out).max()))
    assert errors[-1] < 3e-5
    np.testing.assert_allclose(np.divide(errors[:-1], errors[1:]), 10, rtol=0.02)


def test_consistency_scalings_have_the_papers_form():
    c = precond.consistency_scalings(jnp.asarray(LEVELS, jnp.float32), SIGMA_DATA, 0.002)
    shifted = LEVELS - 0.002
    np.testing.assert_allclose(c.skip, 0.25 / (shifted**2 + 0.25), rtol=1e-5)
    np.testing.assert_allclose(
        c.out, shifted * 0.5 / np.sqrt(LEVELS**2 + 0.25), rtol=1e-4, atol=1e-8
    )
    np.testing.assert_allclose(c.noise, 250 * np.log(LEVELS), rtol=1e-5)


def test_precondition_combines_in_float32_what_the_network_computes_in_bfloat16():
    net = lambda params, x, cond, label, key: jnp.zeros(x.shape, jnp.bfloat16)  # noqa: E731
    denoise = precond.precondition(net, lambda t: precond.edm_scalings(t, SIGMA_DATA))
    x, t = normal(0, (2, 2, 2, 1)), jnp.array([0.1, 1.0])
    found = denoise({}, x, t)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, process.expand(0.25 / (t**2 + 0.25), x) * x, rtol=1e-6)


def test_denoisers_of_rectified_flow_are_velocities_and_have_their_boundary():
    net = lambda params, x, cond, label=None, key=None: jnp.sin(x) + expand(cond[:, 0], x)  # noqa: E731
    x, t = jax.random.normal(jax.random.key(0), (3, 2)), jnp.array([RF.t_min, 0.4, 1.0])
    velocity = net(None, x, t[:, None])
    denoise = precond.precondition(net, precond.diffusion_scalings(RF, 0.5))
    np.testing.assert_allclose(
        ode.pf_ode(lambda x, t: denoise(None, x, t))(x, t), velocity, atol=1e-3
    )
    consistent = precond.precondition(net, precond.at_boundary(RF, 0.5))(None, x, t)
    np.testing.assert_array_equal(consistent[0], x[0])
    np.testing.assert_allclose(consistent, x - expand(t - RF.t_min, x) * velocity, atol=1e-6)
