"""Averages of the weights: fixed-rate and power-function ones, as coefficients, and post hoc.

An average follows avg_t = avg_{t-1} + share(t) (theta_t - avg_{t-1}) over the steps t = 1, 2, ...

Fixed rate: share = 1 - rate. Over theta_1 .. theta_K, starting at theta_1, that is sum_i a_i theta_i
with a_1 = rate^{K-1} and a_i = (1 - rate) rate^{K-i}: a special case of a linear combination of
checkpoints (LCSC, arXiv 2404.02241).

Power function (EDM2, arXiv 2312.02696, section 3.1): the profile p(tau) = (gamma + 1) tau^gamma /
t^(gamma + 1) over 0 <= tau <= t, whose width is the same share of the training at every t: the
standard deviation of tau / t is sigma_rel. share(t) = 1 - (1 - 1/t)^(gamma + 1), so theta_i has the
weight (i^(gamma+1) - (i-1)^(gamma+1)) / t^(gamma+1), p's integral over (i - 1, i], and what was
there before step 1 has none.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from cm_jax.core import tree
from cm_jax.errors import UserError
from cm_jax.types import Array, Params

MAX_SIGMA_REL = 12**-0.5  # of gamma = 0, the uniform average
POWER = 'power'  # how the name of a power-function average begins: 'power0.05'

Share = Callable[[Array], Array | float]  # step t = 1, 2, ... -> share of theta_t in the average


def update(ema: Params, params: Params, rate: float) -> Params:
    """ema <- rate ema + (1 - rate) params, as a lerp in float32."""
    return tree.lerp(ema, params, 1 - rate)


def coefficients(k: int, rate: float) -> np.ndarray:
    """The average at `rate` over K checkpoints, oldest first: [K] float64, sum 1.

    rate 0 is the last checkpoint, rate 1 the first; 0 <= rate <= 1.
    """
    weights = (1 - rate) * float(rate) ** np.arange(k - 1, -1, -1)
    weights[0] = float(rate) ** (k - 1)
    return weights


def sigma_rel_to_gamma(sigma_rel: float) -> float:
    """gamma > 0 with sigma_rel^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)): 6.94 for 0.1.

    That is the variance of the density (gamma + 1) u^gamma on [0, 1]; with s = sigma_rel^-2, the
    largest root of gamma^3 + 7 gamma^2 + (16 - s) gamma + 12 - s. Raises UserError unless
    0 < sigma_rel < 12^-1/2.
    """
    if not 0 < sigma_rel < MAX_SIGMA_REL:
        raise UserError(f'sigma_rel must lie in (0, {MAX_SIGMA_REL:.4f}), got {sigma_rel}')
    s = float(sigma_rel) ** -2
    return float(max(np.roots([1, 7, 16 - s, 12 - s]).real))


def fixed_share(rate: float) -> Share:
    """1 - rate at every step."""
    return lambda t: 1 - rate


def power_share(sigma_rel: float) -> Share:
    """1 - (1 - 1/t)^(gamma + 1), in a form that float32 keeps at large t; 1 at t = 1."""
    exponent = sigma_rel_to_gamma(sigma_rel) + 1
    return lambda t: -jnp.expm1(exponent * jnp.log1p(-1 / t))


def averages(rates: Iterable[float], sigma_rels: Iterable[float] = ()) -> dict[str, Share]:
    """The averages of a training run by name: '0.999' is a fixed rate, 'power0.05' a sigma_rel.

    Raises UserError on one that is out of its range.
    """
    rates, sigma_rels = tuple(rates), tuple(sigma_rels)
    if not all(0 <= rate < 1 for rate in rates):
        raise UserError(f'config.ema_rates must lie in [0, 1), got {rates}')
    if not all(0 < sigma_rel < MAX_SIGMA_REL for sigma_rel in sigma_rels):
        raise UserError(
            f'config.ema_sigma_rels must lie in (0, {MAX_SIGMA_REL:.4f}), got {sigma_rels}'
        )
    shares = {str(rate): fixed_share(rate) for rate in rates}
    return shares | {f'{POWER}{s}': power_share(s) for s in sigma_rels}


def power_coefficients(steps: Sequence[int], sigma_rel: float) -> np.ndarray:
    """The power-function average at the last of K checkpoints: [K] float64, sum 1.

    `steps` ascend from 0 or later. A checkpoint stands for the steps since the one before it, the
    first for those since 0; with steps 1, 2, ..., K that is the very average that training keeps.
    """
    shares = np.asarray(steps, np.float64) / steps[-1]
    return np.diff(shares ** (sigma_rel_to_gamma(sigma_rel) + 1), prepend=0.0)


class PostHoc(NamedTuple):
    """coefficients: [N] float64, sum 1. error: |sum_i c_i p_i - p| / |p| of the profiles, in L2."""

    coefficients: np.ndarray
    error: float


def posthoc(
    steps: Sequence[int], sigma_rels: Sequence[float], step: int, sigma_rel: float
) -> PostHoc:
    """The average `sigma_rel` at `step` from N stored power-function averages, by least squares.

    Average i was stored at steps[i] > 0 with sigma_rels[i]; no two are alike. The coefficients c
    minimise the integral of (sum_i c_i p_i - p)^2 over the profiles (EDM2, section 3.2 and
    appendix C), with one condition that the paper has not: that they sum to 1, so that what never
    changed in training stays as it is where the fit is not close.
    """
    t = np.asarray(steps, np.float64) / step
    gamma = np.array([sigma_rel_to_gamma(s) for s in sigma_rels])
    target = sigma_rel_to_gamma(sigma_rel)
    scale = 1 / np.sqrt(_inner(t, gamma, t, gamma))  # profiles of length 1: a system well scaled
    gram = _inner(t[:, None], gamma[:, None], t, gamma) * scale[:, None] * scale
    wanted = _inner(t, gamma, 1.0, target) * scale
    bordered = np.block([[gram, scale[:, None]], [scale, np.zeros(1)]])
    c = np.linalg.solve(bordered, np.append(wanted, 1.0))[:-1]
    length = _inner(1.0, target, 1.0, target)
    square = (length - 2 * c @ wanted + c @ gram @ c) / length
    return PostHoc(c * scale, float(np.sqrt(max(square, 0.0))))


def _inner(
    ta: np.ndarray | float, a: np.ndarray | float, tb: np.ndarray | float, b: np.ndarray | float
) -> np.ndarray:
    """The integral of p_a p_b; profiles of gamma `a` at `ta` and of gamma `b` at `tb`.

    (a + 1)(b + 1) / (a + b + 1) m^(a+b+1) / (ta^(a+1) tb^(b+1)) with m = min(ta, tb).
    """
    m = np.minimum(ta, tb)
    powers = (m / ta) ** (a + 1) * (m / tb) ** (b + 1) / m
    return (a + 1) * (b + 1) / (a + b + 1) * powers
