"""Noise levels: the grids of levels for sampling, and the laws that training draws levels from."""

import jax
import jax.numpy as jnp
import numpy as np

from cm_jax.core.process import Process
from cm_jax.errors import UserError
from cm_jax.types import Array, Key


def karras_sigmas(n: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Array:
    """Returns n levels from sigma_max down to sigma_min, [n].

    s_i = (s_max^{1/rho} + i / (n-1) (s_min^{1/rho} - s_max^{1/rho}))^rho,  i = 0 .. n-1

    (EDM, arXiv 2206.00364, equation 5). If n is 1, the level is sigma_max. The levels are computed in
    float64 on the host: computed in float32, the last one would differ from sigma_min by about 1e-6
    of it, and so could lie outside the range of the process.
    """
    ramp = np.linspace(0.0, 1.0, n)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return jnp.asarray((high + ramp * (low - high)) ** rho, float)


def karras_level(
    index: Array, n: Array, sigma_min: float, sigma_max: float, rho: float = 7.0
) -> Array:
    """Returns the levels s_index [B] of `karras_sigmas(n, ...)` for index [B] and n >= 2.

    `index` and `n` may be traced, so n can come from a curriculum. An index that is not a whole number
    gives a level between two levels of the grid. The first and the last level are exactly sigma_max
    and sigma_min, from which the formula in float32 differs by about 1e-6 of them.
    """
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    inside = (high + index / (n - 1) * (low - high)) ** rho
    return jnp.where(index <= 0, sigma_max, jnp.where(index >= n - 1, sigma_min, inside))


def levels(process: Process, n: int, rho: float | None = None) -> Array:
    """Returns the grid of n levels from t_max down to t_min, [n].

    `rho` None is the rho of the process. That gives EDM's grid for variance exploding, and
    t_max + i / (n-1) (t_min - t_max) for rectified flow.
    """
    rho = process.rho if rho is None else rho
    return karras_sigmas(n, process.t_min, process.t_max, rho)


def level(process: Process, index: Array, n: Array, rho: float | None = None) -> Array:
    """Returns the levels number `index` [B] of `levels(process, n, rho)`.

    `index` and `n` may be traced. An index that is not a whole number gives a level between two.
    """
    rho = process.rho if rho is None else rho
    return karras_level(index, n, process.t_min, process.t_max, rho)


def sampling_levels(process: Process, n: int) -> np.ndarray:
    """Returns the levels t_0 = t_max > ... > t_n = 0 of an ODE sampler's n steps: [n + 1], float64.

    For variance exploding they are EDM's grid of n levels, whose last one is t_min, and 0. For
    rectified flow they are t_max (1 - i/n) (arXiv 2209.03003, 2305.10769). Raises UserError if, on
    rectified flow, the last level before 0 would lie below t_min.
    """
    if process.name == 'rf':
        if process.t_max < n * process.t_min:
            raise UserError(
                f'{n} equal steps from t_max = {process.t_max:g} pass t_min = {process.t_min:g} before '
                f'0: at most {int(process.t_max / process.t_min):,} steps are possible'
            )
        return process.t_max * (1 - np.arange(n + 1) / n)
    return np.append(np.asarray(levels(process, n)), 0.0)


def ict_level_probs(sigmas: Array, p_mean: float, p_std: float) -> Array:
    """Returns the probabilities [n-1] of the gaps of a grid by the lognormal law; their sum is 1.

    p(s_i) ~ erf((ln s_{i+1} - p_mean) / (sqrt(2) p_std)) - erf((ln s_i - p_mean) / (sqrt(2) p_std))

    (iCT, arXiv 2310.14189, section 3.5). The levels sigmas [n] ascend; a gap between two equal levels
    has probability 0.
    """
    cdf = jax.scipy.special.erf((jnp.log(sigmas) - p_mean) / (2**0.5 * p_std))
    return jnp.diff(cdf) / (cdf[-1] - cdf[0])


def lognormal(key: Key, n: int, p_mean: float, p_std: float) -> Array:
    """Returns n random levels t with ln t ~ N(p_mean, p_std^2) (EDM, table 1), [n]."""
    return jnp.exp(p_mean + p_std * jax.random.normal(key, (n,)))


def logit_normal(key: Key, n: int, p_mean: float, p_std: float) -> Array:
    """Returns n random numbers u in (0, 1) with ln(u / (1 - u)) ~ N(p_mean, p_std^2), [n].

    Esser et al. (arXiv 2403.03206, equation 19) draw the levels of rectified flow like this.
    """
    return jax.nn.sigmoid(p_mean + p_std * jax.random.normal(key, (n,)))
