"""The two processes: x_t = a(t) x0 + t eps.

Variance exploding (EDM, CT, iCT, ECT, CD): a = 1. Rectified flow (CUD): a = 1 - t. With
D(x, t) = E[x0 | x_t = x], the noise is eps = (x - a D) / t, and

    dx/dt = a'(t) D + eps = (x - D) / t

for both: a' = 0 and a = 1 give it at once; a' = -1 and a = 1 - t give
(x - (1 - t) D) / t - D, the same.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from cm_jax.errors import UserError, check_name
from cm_jax.types import Array


class Process(NamedTuple):
    """`signal(t)` is a(t); levels run from t_max (noise) to t_min; x_{t_max} ~ N(0, prior_std^2).

    `rho` shapes the grid of levels (core.noise.karras_sigmas): 7 is EDM's, 1 is uniform.
    """

    name: str
    signal: Callable[[Array], Array]
    t_min: float
    t_max: float
    prior_std: float
    rho: float


def expand(c: Array, x: Array) -> Array:
    """[B] -> [B, 1, ..., 1], so that it broadcasts against x [B, ...]."""
    return jnp.reshape(c, c.shape + (1,) * (x.ndim - c.ndim))


def perturb(process: Process, x0: Array, eps: Array, t: Array) -> Array:
    """x_t = a(t) x0 + t eps; x0, eps [B, ...], t [B]."""
    return expand(process.signal(t), x0) * x0 + expand(t, eps) * eps


def variance_exploding(t_min: float = 0.002, t_max: float = 80.0) -> Process:
    """x_t = x0 + t eps, t in [t_min, t_max] (EDM, arXiv 2206.00364, table 1)."""
    return Process('ve', jnp.ones_like, t_min, t_max, t_max, 7.0)


def rectified_flow(t_min: float = 1e-5, t_max: float = 1.0) -> Process:
    """x_t = (1 - t) x0 + t eps, t in [t_min, t_max], t_max at most 1 (arXiv 2209.03003).

    Its grids are uniform in t.
    """
    if t_max > 1:
        raise UserError(f'rectified flow has t_max in (0, 1], got {t_max}')
    return Process('rf', lambda t: 1 - t, t_min, t_max, 1.0, 1.0)


PROCESSES = {'ve': variance_exploding, 'rf': rectified_flow}


def build(name: str, t_min: float, t_max: float) -> Process:
    """The process `name`, one of PROCESSES, between two noise levels."""
    check_name('process', name, PROCESSES)
    if not 0 < t_min < t_max:
        raise UserError(f'process needs 0 < t_min < t_max, got t_min={t_min}, t_max={t_max}')
    return PROCESSES[name](t_min, t_max)
