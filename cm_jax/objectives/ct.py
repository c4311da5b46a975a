"""CT: consistency training, from data alone (Song et al., arXiv 2303.01469, algorithm 3).

    E  w(t) d( D_theta(x_t, t), D_target(x_r, r) ),   x_t = x0 + t eps,  x_r = x0 + r eps

t and r are neighbours on the grid of `noise.levels` with N(k) levels; each of the N(k) - 1 pairs is
drawn with the same probability. The target's weights are a moving average of the student's, at rate
mu(k). N and mu depend on the training step k (core/curriculum.py). D satisfies the boundary condition
D(x, t_min) = x in training too. On rectified flow x_t = (1 - t) x0 + t eps, and x_r likewise.

| paper and code | here |
| t_{n+1}, t_n | t, r |
| theta, theta^- | params, refs |
| N(k), mu(k), s_0, s_1, mu_0 | ct_num_scales, ct_target_ema, s0, s1, mu0 |
| K | total_steps |
| lambda(t_n) | weight, of t |
| epsilon, T | process.t_min, process.t_max |
| F's noise input 250 ln t (ImageNet-64, LSUN) | the network's noise_scale 1000 on ln(t)/4 |
"""

from typing import Annotated

import jax

from cm_jax.bounds import Count, Interval, Positive
from cm_jax.core import noise
from cm_jax.core.curriculum import ct_num_scales, ct_target_ema
from cm_jax.core.precond import at_boundary, precondition
from cm_jax.core.process import Process, Rho
from cm_jax.errors import UserError
from cm_jax.objectives import Objective, require_process
from cm_jax.objectives._consistency import distance_of, make_consistency, same_noise
from cm_jax.types import Array, Distance, Key, NetFn


def make(
    net: NetFn,
    *,
    process: Process,
    sigma_data: Positive,
    total_steps: Count,
    s0: Annotated[int, Interval('[2, 1000000]')] = 2,
    s1: Annotated[int, Interval('[2, 1000000]')] = 150,
    mu0: Annotated[float, Interval('(0, 1)')] = 0.9,
    distance: str | Distance = 'l2',
    weight: str = 'uniform',
    rho: Rho | None = None,
) -> Objective:
    """Returns CT's objective.

    The defaults are the paper's for CIFAR-10, except the distance, which is LPIPS there. Raises
    UserError on settings that contradict each other.

    Args:
      net: the network that is trained.
      process: 've' or 'rf'.
      sigma_data: the standard deviation of the data in [-1, 1], > 0.
      total_steps: K, the training step at which the schedules end, >= 1.
      s0: the number of levels of the grid at the start, >= 2.
      s1: the number of gaps between levels at the end, >= s0.
      mu0: the rate of the target's moving average at the start, in (0, 1).
      distance: 'l1', 'l2', 'pseudo_huber' (with c = 0) or a network. A config names the network
        'lpips', and its files in config.lpips.
      weight: one of core.weighting.WEIGHTINGS.
      rho: shapes the grid. None takes the process's: 7 on 've', 1 (a uniform grid) on 'rf'.
    """
    require_process('ct', process, 've', 'rf')
    if s0 > s1:
        raise UserError(f'ct needs s0 <= s1, got s0={s0}, s1={s1}')
    denoise = precondition(net, at_boundary(process, sigma_data))

    def num_levels(step: Array) -> Array:
        return ct_num_scales(step, total_steps, s0, s1)

    def draw_pair(key: Key, count: int, step: Array) -> tuple[Array, Array]:
        n = num_levels(step)
        i = jax.random.randint(key, (count,), 0, n - 1)
        t, r = (noise.level(process, j, n, rho) for j in (i, i + 1))
        return t, r

    return make_consistency(
        denoise,
        denoise,
        process=process,
        levels=draw_pair,
        reach=same_noise(process),
        distance=distance_of(distance),
        weight=weight,
        sigma_data=sigma_data,
        target_rate=lambda step: ct_target_ema(step, total_steps, s0, s1, mu0),
        num_levels=num_levels,
    )
