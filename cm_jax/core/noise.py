"""Noise levels: the grid that samplers walk down, and the laws that training draws from."""

import jax
import jax.numpy as jnp
import numpy as np

from cm_jax.core.process import Process
from cm_jax.errors import UserError
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


def karras_level(index: Array, n: Array, sigma_min: float, sigma_max: float, rho: float = 7.0):
    """s_index of `karras_sigmas(n, ...)` for traced `index` [B] and `n` >= 2: from a curriculum.

    The ends are sigma_max and sigma_min themselves, which float32 would miss by some 1e-6. A
    fractional index lies between two levels. Returns [B].
    """
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    inside = (high + index / (n - 1) * (low - high)) ** rho
    return jnp.where(index <= 0, sigma_max, jnp.where(index >= n - 1, sigma_min, inside))


def levels(process: Process, n: int, rho: float | None = None) -> Array:
    """The grid of n levels from t_max down to t_min, with the process's rho or another.

    EDM's for variance exploding, t_max + i / (n-1) (t_min - t_max) for rectified flow. Returns [n].
    """
    rho = process.rho if rho is None else rho
    return karras_sigmas(n, process.t_min, process.t_max, rho)


def level(process: Process, index: Array, n: Array, rho: float | None = None) -> Array:
    """Level `index` [B] of `levels(process, n, rho)`, both traced and index perhaps fractional."""
    rho = process.rho if rho is None else rho
    return karras_level(index, n, process.t_min, process.t_max, rho)


def sampling_levels(process: Process, n: int) -> np.ndarray:
    """The levels t_0 = t_max > ... > t_n = 0 that an ODE sampler takes its n steps between.

    EDM's grid, whose last level is t_min, and 0, for variance exploding; t_max (1 - i/n) for rectified
    flow (arXiv 2209.03003, 2305.10769). Returns [n + 1], float64. Raises UserError if so many equal
    steps go below t_min.
    """
    if process.name == 'rf':
        if process.t_max < n * process.t_min:
            raise UserError(
                f'{n} equal steps from t_max = {process.t_max:g} pass t_min = {process.t_min:g} before '
                f'0: at most {int(process.t_max / process.t_min):,}'
            )
        return process.t_max * (1 - np.arange(n + 1) / n)
    return np.append(np.asarray(levels(process, n)), 0.0)


def ict_level_probs(sigmas: Array, p_mean: float, p_std: float) -> Array:
    """The lognormal law over the gaps of a grid (iCT, arXiv 2310.14189, section 3.5):

    p(s_i) ~ erf((ln s_{i+1} - p_mean) / (sqrt(2) p_std)) - erf((ln s_i - p_mean) / (sqrt(2) p_std))

    sigmas [n] ascend (equal neighbours have probability 0). Returns [n-1], sum 1.
    """
    cdf = jax.scipy.special.erf((jnp.log(sigmas) - p_mean) / (2**0.5 * p_std))
    return jnp.diff(cdf) / (cdf[-1] - cdf[0])


def lognormal(key: Key, n: int, p_mean: float, p_std: float) -> Array:
    """n levels t with ln t ~ N(p_mean, p_std^2) (EDM, table 1). Returns [n]."""
    return jnp.exp(p_mean + p_std * jax.random.normal(key, (n,)))


def logit_normal(key: Key, n: int, p_mean: float, p_std: float) -> Array:
    """n numbers u in (0, 1) with ln(u / (1 - u)) ~ N(p_mean, p_std^2). Returns [n].

    The levels of rectified flow in Esser et al. (arXiv 2403.03206, equation 19).
    """
    return jax.nn.sigmoid(p_mean + p_std * jax.random.normal(key, (n,)))
