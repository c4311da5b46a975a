"""Noise levels: grids, and the laws that levels are drawn from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax.core import noise
from tests.helpers.objectives import RF


@pytest.mark.parametrize('low, high', [(0.002, 80.0), (1e-5, 80.0), (1e-5, 1.0), (0.02, 10.0)])
def test_karras_levels_descend_from_end_to_end_evenly_in_the_rho_th_root(low, high):
    for n in (2, 3, 18, 40):
        levels = np.asarray(noise.karras_sigmas(n, low, high), np.float64)
        assert levels.shape == (n,)
        np.testing.assert_allclose(levels[[0, -1]], [high, low], rtol=2e-7, err_msg=f'{n=}')
        assert np.all(np.diff(levels) < 0), n
        np.testing.assert_allclose(np.diff(levels ** (1 / 7), 2), 0, atol=1e-6, err_msg=f'{n=}')


def test_karras_levels_of_one_is_the_largest():
    np.testing.assert_allclose(noise.karras_sigmas(1, 0.002, 80.0), [80.0], rtol=2e-7)


def test_lognormal_has_the_moments_asked_for():
    n, mean, std = 200_000, -1.1, 2.0
    log_t = np.log(np.asarray(noise.lognormal(jax.random.key(0), n, mean, std), np.float64))
    assert log_t.shape == (n,)
    assert abs(log_t.mean() - mean) < 5 * std / np.sqrt(n)
    assert abs(log_t.std() - std) < 5 * std / np.sqrt(2 * n)


def test_grids_of_rectified_flow_are_uniform():
    np.testing.assert_allclose(noise.levels(RF, 5), np.linspace(1, 1e-3, 5), rtol=1e-6)
    index = jnp.array([0.0, 1.5, 4.0])
    found = noise.level(RF, index, jnp.int32(5))
    np.testing.assert_allclose(found, [1, 1 - 1.5 / 4 * 0.999, 1e-3], rtol=1e-6)
    np.testing.assert_allclose(noise.sampling_levels(RF, 4), [1, 0.75, 0.5, 0.25, 0])
    np.testing.assert_allclose(
        noise.levels(RF, 3, rho=7.0)[1], ((1 + 1e-3 ** (1 / 7)) / 2) ** 7, rtol=1e-5
    )
