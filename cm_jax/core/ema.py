"""Averages of the weights over training, at a fixed rate or of a power function.

The same averages are here in three forms: as a recursion for training, as coefficients of a linear
combination of checkpoints, and reconstructed from other averages after training (post hoc).

Every average follows the recursion avg_t = avg_{t-1} + share(t) (theta_t - avg_{t-1}) over the steps
t = 1, 2, ..., with theta_t the weights after step t.

Fixed rate: share = 1 - rate. Over theta_1 .. theta_K, starting at theta_1, the average is
sum_i a_i theta_i with a_1 = rate^{K-1} and a_i = (1 - rate) rate^{K-i}: a special case of a linear
combination of checkpoints (LCSC, arXiv 2404.02241).

Power function (EDM2, arXiv 2312.02696, section 3.1): theta at the time tau has the density, called
the profile, p(tau) = (gamma + 1) tau^gamma / t^(gamma + 1) over 0 <= tau <= t. Its width grows with t:
the standard deviation of tau / t is sigma_rel at every t. The recursion has share(t) =
1 - (1 - 1/t)^(gamma + 1). So theta_i has the weight (i^(gamma+1) - (i-1)^(gamma+1)) / t^(gamma+1),
which is the integral of p over (i - 1, i], and the initial weights have the weight 0.

With its bias corrected (BEMA, arXiv 2508.00180, algorithm 1): an average whose share falls over time,
avg_t + alpha_t (theta_t - theta_0) with alpha_t = (rho + gamma t)^-eta and the share
(rho + gamma t)^-kappa. Its lag behind theta_t is made up for by a part of the way from theta_0.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from cm_jax.core import tree
from cm_jax.errors import UserError
from cm_jax.types import Array, Params

MAX_SIGMA_REL = 12**-0.5  # sigma_rel of gamma = 0, the uniform average
POWER = 'power'  # names of power-function averages begin with it: 'power0.05'

Share = Callable[[Array], Array | float]  # from the step t = 1, 2, ... to the share of theta_t


def update(ema: Params, params: Params, rate: Array | float) -> Params:
    """Returns rate ema + (1 - rate) params, computed as a `tree.lerp`."""
    return tree.lerp(ema, params, 1 - rate)


def coefficients(k: int, rate: float) -> np.ndarray:
    """Returns the coefficients [K] of the average at `rate` over k checkpoints, the oldest first.

    They are float64 and their sum is 1. The rate is in [0, 1]: rate 0 gives the last checkpoint, and
    rate 1 the first.
    """
    weights = (1 - rate) * float(rate) ** np.arange(k - 1, -1, -1)
    weights[0] = float(rate) ** (k - 1)
    return weights


def sigma_rel_to_gamma(sigma_rel: float) -> float:
    """Returns the exponent gamma > 0 of the profile with the relative width sigma_rel.

    sigma_rel^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3))

    which is the variance of the density (gamma + 1) u^gamma on [0, 1]. With s = sigma_rel^-2, gamma is
    the largest root of gamma^3 + 7 gamma^2 + (16 - s) gamma + 12 - s; sigma_rel = 0.1 has
    gamma = 6.94. Raises UserError unless 0 < sigma_rel < 12^-1/2.
    """
    if not 0 < sigma_rel < MAX_SIGMA_REL:
        raise UserError(f'sigma_rel must lie in (0, {MAX_SIGMA_REL:.4f}), got {sigma_rel}')
    s = float(sigma_rel) ** -2
    return float(max(np.roots([1, 7, 16 - s, 12 - s]).real))


def fixed_share(rate: float) -> Share:
    """Returns the share of an average at a fixed rate: 1 - rate at every step."""
    return lambda t: 1 - rate


def power_share(sigma_rel: float) -> Share:
    """Returns the share of a power-function average: 1 - (1 - 1/t)^(gamma + 1), which is 1 at t = 1.

    It is computed in a form that is accurate in float32 also at large t.
    """
    exponent = sigma_rel_to_gamma(sigma_rel) + 1
    return lambda t: -jnp.expm1(exponent * jnp.log1p(-1 / t))


def averages(rates: Iterable[float], sigma_rels: Iterable[float] = ()) -> dict[str, Share]:
    """Returns the share of each average of a training run by the average's name.

    '0.999' is the average at the fixed rate 0.999, and 'power0.05' the power-function average with
    sigma_rel 0.05; rates are in [0, 1). Raises UserError if a sigma_rel is not in (0, 12^-1/2).
    """
    shares = {str(rate): fixed_share(rate) for rate in rates}
    return shares | {f'{POWER}{s}': power_share(s) for s in sigma_rels}


def power_coefficients(steps: Sequence[int], sigma_rel: float) -> np.ndarray:
    """Returns the coefficients [K] of the power-function average at the last of K checkpoints.

    They are float64 and their sum is 1. `steps` are the steps of the checkpoints, ascending, none of
    them negative. A checkpoint stands for all steps since the checkpoint before it, and the first one
    for all steps since step 0. With the steps 1, 2, ..., K the result is the same average that
    training keeps.
    """
    shares = np.asarray(steps, np.float64) / steps[-1]
    return np.diff(shares ** (sigma_rel_to_gamma(sigma_rel) + 1), prepend=0.0)


def bema_coefficients(
    times: Sequence[float],
    eta: float,
    *,
    kappa: float = 0.5,
    rho: float = 10.0,
    gamma: float = 1.0,
) -> np.ndarray:
    """Returns the coefficients [K] of BEMA at the last of K checkpoints; the first one is theta_0.

    They are float64 and their sum is 1; that of theta_0 may be negative. `times` are the t of the
    checkpoints, ascending, the first of them 0. The average starts at theta_0 and takes in each later
    checkpoint once, with the share beta_t = (rho + gamma t)^-kappa, which needs rho >= 1 to lie in
    (0, 1]. So, with a product over all later times,

        c_k = beta_k prod_{j > k} (1 - beta_j),   c_0 = prod_{j > 0} (1 - beta_j)

    and alpha = (rho + gamma t)^-eta of the last time is added to the last coefficient and taken from
    the first. The defaults are the paper's, whose eta is 0.2.
    """
    reach = rho + gamma * np.asarray(times, np.float64)
    shares = np.append(1.0, reach[1:] ** -kappa)
    kept = np.cumprod(np.append(1.0, 1 - shares[:0:-1]))[::-1]  # of each checkpoint's share
    weights, alpha = shares * kept, reach[-1] ** -eta
    weights[-1] += alpha
    weights[0] -= alpha
    return weights


class PostHoc(NamedTuple):
    """How to make an average from N stored ones, and how well that approximates it."""

    coefficients: np.ndarray  # [N] float64, c_i of stored average i; their sum is 1
    error: float  # |sum_i c_i p_i - p| / |p|, of the profiles in the L2 norm


def posthoc(
    steps: Sequence[int], sigma_rels: Sequence[float], step: int, sigma_rel: float
) -> PostHoc:
    """Returns the average `sigma_rel` at `step` as a combination of N stored power-function averages.

    Average i was stored at steps[i] > 0 with sigma_rels[i], and no two of these pairs are equal. The
    coefficients c minimise the integral of (sum_i c_i p_i - p)^2 over the profiles (EDM2, section 3.2
    and appendix C), under one condition that the paper does not have: they sum to 1. So a weight that
    never changed in training keeps its value, even where the fit is not close.
    """
    t = np.asarray(steps, np.float64) / step
    gamma = np.array([sigma_rel_to_gamma(s) for s in sigma_rels])
    target = sigma_rel_to_gamma(sigma_rel)
    # Profiles are scaled to length 1, so that the system of equations is well scaled.
    scale = 1 / np.sqrt(_inner_product(t, gamma, t, gamma))
    gram = _inner_product(t[:, None], gamma[:, None], t, gamma) * scale[:, None] * scale
    wanted = _inner_product(t, gamma, 1.0, target) * scale
    bordered = np.block([[gram, scale[:, None]], [scale, np.zeros(1)]])
    c = np.linalg.solve(bordered, np.append(wanted, 1.0))[:-1]
    square_norm = _inner_product(1.0, target, 1.0, target)
    square = (square_norm - 2 * c @ wanted + c @ gram @ c) / square_norm
    return PostHoc(c * scale, float(np.sqrt(max(square, 0.0))))


def _inner_product(
    ta: np.ndarray | float, a: np.ndarray | float, tb: np.ndarray | float, b: np.ndarray | float
) -> np.ndarray:
    """Returns the integral of p_a p_b: profiles of gamma `a` at step `ta`, and of gamma `b` at `tb`.

    It is (a + 1)(b + 1) / (a + b + 1) m^(a+b+1) / (ta^(a+1) tb^(b+1)) with m = min(ta, tb).
    """
    m = np.minimum(ta, tb)
    powers = (m / ta) ** (a + 1) * (m / tb) ** (b + 1) / m
    return (a + 1) * (b + 1) / (a + b + 1) * powers
