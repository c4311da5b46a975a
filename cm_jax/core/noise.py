"""Noise levels: the grid that samplers walk down, and the laws that training draws from."""

import jax
import jax.numpy as jnp
import numpy as np

from cm_jax.types import Array, Key


def karras_sigmas(n: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Array:
    """n levels from sigma_max down to sigma_min: (EDM, eq. 5)

    s_i = (s_max^{1/rho} + i / (n-1) (s_min^{1/rho} - s_max^{1/rho}))^rho, i = 0 .. n-1. Returns [n];
    one level is sigma_max. Computed in float64 on the host: in float32 the last level misses
    sigma_min by some 1e-6 of it, and with it the process's range.
    """
    ramp = np.linspace(0.0, 1.0, n)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return jnp.asarray((high + ramp * (low - high)) ** rho, float)


def lognormal(key: Key, n: int, p_mean: float, p_std: float) -> Array:
    """n levels t with ln t ~ N(p_mean, p_std^2) (EDM, table 1). Returns [n]."""
    return jnp.exp(p_mean + p_std * jax.random.normal(key, (n,)))
