"""Noise levels: the grid that samplers walk down, and the laws that training draws from."""

import jax
import jax.numpy as jnp

from cm_jax.types import Array, Key


def karras_sigmas(n: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Array:
    """n levels from sigma_max down to sigma_min: (EDM, eq. 5)

    s_i = (s_max^{1/rho} + i / (n-1) (s_min^{1/rho} - s_max^{1/rho}))^rho, i = 0 .. n-1. Returns [n];
    one level is sigma_max.
    """
    ramp = jnp.linspace(0.0, 1.0, n)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return (high + ramp * (low - high)) ** rho


def lognormal(key: Key, n: int, p_mean: float, p_std: float) -> Array:
    """n levels t with ln t ~ N(p_mean, p_std^2) (EDM, table 1). Returns [n]."""
    return jnp.exp(p_mean + p_std * jax.random.normal(key, (n,)))
