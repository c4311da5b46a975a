"""The two processes that turn an image x0 into noise: x_t = a(t) x0 + t eps, eps ~ N(0, I).

Variance exploding (EDM, CT, iCT, ECT, CD) has a = 1, and rectified flow (CUD) has a = 1 - t. With the
denoiser D(x, t) = E[x0 | x_t = x] the mean noise is (x - a D) / t, and the probability-flow ODE is

    dx/dt = a'(t) D + (x - a D) / t = (x - D) / t

for both processes. It follows at once from a' = 0 and a = 1; from a' = -1 and a = 1 - t it is
(x - (1 - t) D) / t - D, which is the same.
"""

from collections.abc import Callable
from typing import Annotated, NamedTuple

import jax.numpy as jnp

from cm_jax.bounds import Interval, Positive
from cm_jax.errors import UserError, check_name
from cm_jax.types import Array

Rho = Annotated[float, Interval('[0.1, 1000]')]  # levels to the power 1/rho stay in range


class Process(NamedTuple):
    """A process between the noise levels t_min and t_max."""

    name: str  # 've' or 'rf'
    signal: Callable[[Array], Array]  # a(t)
    t_min: float  # the lowest level
    t_max: float  # the highest level, which sampling starts from
    prior_std: float  # x_{t_max} ~ N(0, prior_std^2) is what sampling starts with
    rho: float  # shape of the grid of levels (core.noise.karras_sigmas): 7 is EDM's, 1 is uniform


def expand(c: Array, x: Array) -> Array:
    """Returns c [B] as [B, 1, ..., 1], so that it broadcasts against x [B, ...]."""
    return jnp.reshape(c, c.shape + (1,) * (x.ndim - c.ndim))


def perturb(process: Process, x0: Array, eps: Array, t: Array) -> Array:
    """Returns x_t = a(t) x0 + t eps for x0 and eps [B, ...] and t [B]."""
    return expand(process.signal(t), x0) * x0 + expand(t, eps) * eps


def variance_exploding(t_min: float = 0.002, t_max: float = 80.0) -> Process:
    """Returns the process x_t = x0 + t eps, t in [t_min, t_max] (EDM, arXiv 2206.00364, table 1)."""
    return Process(
        name='ve', signal=jnp.ones_like, t_min=t_min, t_max=t_max, prior_std=t_max, rho=7.0
    )


def rectified_flow(t_min: float = 1e-5, t_max: float = 1.0) -> Process:
    """Returns the process x_t = (1 - t) x0 + t eps, t in [t_min, t_max] (arXiv 2209.03003).

    Its grids of levels are uniform in t. Raises UserError if t_max is above 1.
    """
    if t_max > 1:
        raise UserError(f'rectified flow needs t_max in (0, 1], got {t_max}')
    return Process(
        name='rf', signal=lambda t: 1 - t, t_min=t_min, t_max=t_max, prior_std=1.0, rho=1.0
    )


PROCESSES = {'ve': variance_exploding, 'rf': rectified_flow}


def build(name: str, t_min: Positive, t_max: Positive) -> Process:
    """Returns the process `name`, one of PROCESSES, between two noise levels.

    Raises UserError on another name, unless 0 < t_min < t_max, and if t_max is too high for it.
    """
    check_name('process', name, PROCESSES)
    if not 0 < t_min < t_max:
        raise UserError(f'process needs 0 < t_min < t_max, got t_min={t_min}, t_max={t_max}')
    return PROCESSES[name](t_min, t_max)
