"""iCT: improved consistency training, from data alone (Song and Dhariwal, arXiv 2310.14189).

    E  1/(t - r) d( D(x_t, t), stopgrad D(x_r, r) ),   x_t = x0 + t eps,  x_r = x0 + r eps

These points differ from CT:
- the target has the current weights (mu = 0);
- the distance d is pseudo-Huber with c = 0.00054 sqrt(number of values of an image);
- the number of gaps of the grid doubles from stage to stage, from s0 to s1;
- the pair of neighbours (t, r) on the grid is drawn with probabilities of a lognormal law;
- the weight is the inverse gap.

Both passes have the same dropout mask. The paper's smaller Fourier scale, 0.02, is a setting of the
network: `embedding_scale`.

| paper | here |
| sigma_{i+1}, sigma_i | t, r |
| N(k), K, K' | ict_num_scales, total_steps, its stage length |
| P_mean, P_std | p_mean, p_std |
| lambda(sigma_i) = 1/(sigma_{i+1} - sigma_i) | weight 'inverse_gap' |
| c; d, the number of values of an image | c; None is 0.00054 sqrt(d) |
"""

from typing import Annotated

import jax
import jax.numpy as jnp

from cm_jax.bounds import Count, Interval, NonNegative, Positive, Real
from cm_jax.core import noise
from cm_jax.core.curriculum import ict_num_scales
from cm_jax.core.distance import pseudo_huber
from cm_jax.core.precond import boundary_scalings, precondition
from cm_jax.core.process import Process, Rho
from cm_jax.errors import UserError
from cm_jax.objectives import Objective, require_process
from cm_jax.objectives._consistency import make_consistency, same_noise
from cm_jax.types import Array, Key, NetFn


def make(
    net: NetFn,
    *,
    process: Process,
    sigma_data: Positive,
    total_steps: Count,
    s0: Annotated[int, Interval('[1, 1000000]')] = 10,
    s1: Annotated[int, Interval('[1, 1000000]')] = 1280,
    p_mean: Real = -1.1,
    p_std: Positive = 2.0,
    c: NonNegative | None = None,
    weight: str = 'inverse_gap',
    rho: Rho | None = None,
) -> Objective:
    """Returns iCT's objective; the defaults are the paper's.

    Raises UserError on another process or weight, and on settings that contradict each other.

    Args:
      net: the network that is trained.
      process: 've'.
      sigma_data: the standard deviation of the data in [-1, 1], > 0.
      total_steps: K, the training steps over which the stages are spread, >= 1.
      s0, s1: the number of gaps in the first and in the last stage; 1 <= s0 <= s1.
      p_mean, p_std: the mean and the standard deviation of ln t; p_std > 0.
      c: the constant of the pseudo-Huber distance, >= 0. None takes the paper's,
        0.00054 sqrt(number of values of an image).
      weight: one of core.weighting.WEIGHTINGS.
      rho: shapes the grid. None takes the process's, 7.
    """
    require_process('ict', process, 've')
    if s0 > s1:
        raise UserError(f'ict needs s0 <= s1, got s0={s0}, s1={s1}')
    denoise = precondition(net, lambda t: boundary_scalings(t, sigma_data, process.t_min))

    def num_levels(step: Array) -> Array:
        return ict_num_scales(step, total_steps, s0, s1)

    def draw_pair(key: Key, count: int, step: Array) -> tuple[Array, Array]:
        n = num_levels(step)
        # Ascending. The array has the same length at every stage, so that a new stage compiles
        # nothing: beyond the n levels of the grid it repeats the highest one.
        sigmas = noise.level(process, jnp.maximum(n - 1 - jnp.arange(s1 + 1), 0), n, rho)
        probs = noise.ict_level_probs(sigmas, p_mean, p_std)
        i = jax.random.choice(key, s1, (count,), p=probs)
        return sigmas[i + 1], sigmas[i]

    def distance(a: Array, b: Array) -> Array:
        return pseudo_huber(a, b, 0.00054 * a[0].size ** 0.5 if c is None else c)

    return make_consistency(
        denoise,
        denoise,
        process=process,
        levels=draw_pair,
        reach=same_noise(process),
        distance=distance,
        weight=weight,
        sigma_data=sigma_data,
        num_levels=num_levels,
    )
