"""Samplers that solve the ODE: their orders on Gaussian data, and the numbers of a paper's code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax import samplers
from cm_jax.core import process
from tests.helpers.gaussian import DATA, PROCESSES, each_process, measured_order, points


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


@pytest.mark.parametrize(
    'spec, of, share',
    [
        ('euler@16', 'euler_16', 1),
        ('euler@1', 'euler_1', 1),
        # That code takes its 8 steps of Heun for 15 evaluations of the length 1/15, not 1/8, at
        # times that are 1/8 apart: its path, at another speed.
        ('heun@8', 'heun_15', 8 / 15),
        ('adams2@8', 'dpm_solver_2_8', 1),
        ('cud3@8', 'dpm_solver_3_8', 1),
    ],
)
def test_samplers_of_a_velocity_are_those_of_cuds_code(recorded, spec, of, share):
    """On the field v(x, t) that its config spells."""
    arrays, config = recorded('sampler_velocity')
    assert config['model'] == 'v(x,t)=sin(2x)*(1-t/2)+0.3*x*t+0.1'

    def denoise(x, t):
        t = t[:, None, None, None]
        v = jnp.sin(2 * x) * (1 - t / 2) + 0.3 * x * t + 0.1
        return x - t * (share * v)

    with jax.enable_x64(True):
        x = jnp.asarray(arrays['x1_noise_nchw'])
        keys = jax.random.split(jax.random.key(0), len(x))
        found = samplers.build(spec, process.build('rf', 1e-5, 1.0)).sample(denoise, x, keys)
    np.testing.assert_allclose(found, arrays[f'{of}/final_nchw'], rtol=0, atol=1e-10)
