"""The two processes: which levels they take, and how they perturb an image."""

import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax.core import process
from cm_jax.errors import UserError
from tests.helpers.arrays import normal


def test_process_build_refuses_names_and_levels():
    with pytest.raises(UserError, match='legal: rf, ve'):
        process.build('vp', 0.002, 80.0)
    for t_min, t_max in ((0.0, 80.0), (80.0, 0.002), (1.0, 1.0)):
        with pytest.raises(UserError, match='0 < t_min < t_max'):
            process.build('ve', t_min, t_max)
    with pytest.raises(UserError, match='t_max in'):
        process.build('rf', 1e-5, 80.0)


@pytest.mark.parametrize('name, t_max', [('ve', 80.0), ('rf', 1.0)])
def test_perturb_is_signal_times_image_plus_t_times_noise(name, t_max):
    p = process.build(name, 1e-3, t_max)
    x0, eps = normal(0, (3, 2, 2, 1)), normal(1, (3, 2, 2, 1))
    t = jnp.array([p.t_min, 0.3 * t_max, t_max])
    x_t = process.perturb(p, x0, eps, t)
    for i in range(3):
        signal = 1 - t[i] if name == 'rf' else 1.0
        np.testing.assert_allclose(x_t[i], signal * x0[i] + t[i] * eps[i], rtol=1e-6)
    np.testing.assert_allclose(
        process.perturb(p, jnp.zeros_like(x0), eps, jnp.full(3, t_max)),
        p.prior_std * eps,
        rtol=1e-6,
    )
