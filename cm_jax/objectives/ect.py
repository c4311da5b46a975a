"""ECT: easy consistency tuning of a diffusion model (Geng et al., arXiv 2406.14548).

    E  w(t, r) d( D(x_t, t), stopgrad D(x_r, r) ),   ln t ~ N(p_mean, p_std^2),
    r = t max(0, 1 - (1 + k sigmoid(-b t)) / q^(stage + 1)),  stage = floor(step / double_every)

x_t and x_r have the same noise, both passes have the same dropout mask, and the target has the current
weights. Where r = 0 the target is x0; if r were 0 at every t, as it is in the first stage for q -> 1,
ECT would be diffusion training. d is the Euclidean distance (c = 0) or pseudo-Huber.

| paper and code | here |
| t, r, q, k, b, c | the same |
| f_theta, n(t) | denoise, 1 + k sigmoid(-b t) |
| double (ticks) | double_every (steps) |
| P_mean, P_std | p_mean, p_std |
| w(t, r) = 1/(t - r) | weighting 'inverse_gap' (CIFAR-10) |
| w(t) = 1/t^2 + 1/sigma_data^2 | weighting 'karras' (ImageNet-64) |
"""

import functools
from typing import Annotated

from cm_jax.bounds import Count, Interval, NonNegative, Positive, Real
from cm_jax.core import noise
from cm_jax.core.curriculum import ect_r, ect_stage
from cm_jax.core.distance import pseudo_huber
from cm_jax.core.precond import boundary_scalings, edm_scalings, precondition
from cm_jax.core.process import Process
from cm_jax.errors import UserError
from cm_jax.objectives import Objective, require_process
from cm_jax.objectives._consistency import make_consistency, same_noise
from cm_jax.types import Array, Key, NetFn


def make(
    net: NetFn,
    *,
    process: Process,
    sigma_data: Positive,
    double_every: Count,
    p_mean: Real = -1.1,
    p_std: Positive = 2.0,
    q: Annotated[float, Interval('(1, 1e30]')] = 2.0,
    k: NonNegative = 8.0,
    b: Positive = 1.0,
    c: NonNegative = 0.0,
    weight: str = 'inverse_gap',
    boundary: NonNegative | None = None,
) -> Objective:
    """Returns ECT's objective; the defaults are the paper's for CIFAR-10.

    Raises UserError on another process or weight, and on a boundary at t_max or above.

    Args:
      net: the network that is trained, usually from a diffusion model (config.init_from).
      process: 've'.
      sigma_data: the standard deviation of the data in [-1, 1], > 0.
      double_every: the training steps in one stage of the curriculum, >= 1.
      p_mean, p_std: the mean and the standard deviation of ln t; p_std > 0.
      q: the factor by which each stage divides the gap t - r, > 1.
      k, b: the shape of the gap as a function of t; k >= 0, b > 0.
      c: the constant of the pseudo-Huber distance, >= 0.
      weight: one of core.weighting.WEIGHTINGS.
      boundary: the level in [0, t_max) at which the denoiser that samplers see is the identity
        (core.precond.boundary_scalings). None is the process's t_min. The paper's code has 0.003 on
        CIFAR-10, and on ImageNet-64 none, which is 0: the denoiser that is trained.
    """
    require_process('ect', process, 've')
    if boundary is not None and boundary >= process.t_max:
        raise UserError(
            f'ect needs boundary in [0, t_max = {process.t_max:g}), or None, got {boundary}'
        )
    t_min = process.t_min if boundary is None else boundary
    trained = precondition(net, lambda t: edm_scalings(t, sigma_data))
    denoise = precondition(net, lambda t: boundary_scalings(t, sigma_data, t_min))

    def draw_pair(key: Key, count: int, step: Array) -> tuple[Array, Array]:
        t = noise.lognormal(key, count, p_mean, p_std)
        return t, ect_r(t, ect_stage(step, double_every), q, k, b)

    return make_consistency(
        trained,
        denoise,
        process=process,
        levels=draw_pair,
        reach=same_noise(process),
        distance=functools.partial(pseudo_huber, c=c),
        weight=weight,
        sigma_data=sigma_data,
    )
