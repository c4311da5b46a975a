"""Weights of the loss, by name."""

import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax.core import precond, weighting
from cm_jax.errors import UserError
from tests.helpers.arrays import LEVELS

SIGMA_DATA = 0.5


def test_edm_weight_undoes_the_output_scaling():
    t = jnp.asarray(LEVELS, jnp.float32)
    out = precond.edm_scalings(t, SIGMA_DATA).out
    np.testing.assert_allclose(weighting.get('karras')(t, t, SIGMA_DATA) * out**2, 1, rtol=1e-5)


def test_weights_by_name():
    t, r = jnp.array([1.0, 2.0]), jnp.array([0.5, 0.0])
    np.testing.assert_array_equal(weighting.get('uniform')(t, r, SIGMA_DATA), [1, 1])
    np.testing.assert_array_equal(weighting.get('inverse_gap')(t, r, SIGMA_DATA), [2, 0.5])
    legal = 'legal: inverse_gap, karras, snr, snr_plus_1, truncated_snr, uniform'
    with pytest.raises(UserError, match=legal):
        weighting.get('edm')
