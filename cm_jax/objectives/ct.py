"""CT: consistency training, from data alone (Song et al., arXiv 2303.01469, algorithm 3).

    E  w(t) d( D_theta(x_t, t), D_target(x_r, r) ),   x_t = x0 + t eps,  x_r = x0 + r eps

t and r are neighbours on the grid of `noise.levels` with N(k) levels, the pair uniform among N - 1;
the target's weights are a moving average of the student's at rate mu(k). N and mu are schedules in
the step (core/curriculum.py). D has the boundary condition D(x, t_min) = x in training too. On
rectified flow x_t = (1 - t) x0 + t eps, and so x_r.

| paper and code | here |
| t_{n+1}, t_n | t, r |
| theta, theta^- | params, refs |
| N(k), mu(k), s_0, s_1, mu_0 | ct_num_scales, ct_target_ema, s0, s1, mu0 |
| K | total_steps |
| lambda(t_n) | weight, of t |
| epsilon, T | process.t_min, process.t_max |
| F's noise input 250 ln t (ImageNet-64, LSUN) | the network's noise_scale 1000 on ln(t)/4 |
"""

import jax

from cm_jax.core import noise
from cm_jax.core.curriculum import ct_num_scales, ct_target_ema
from cm_jax.core.precond import at_boundary, precondition
from cm_jax.core.process import Process
from cm_jax.errors import UserError
from cm_jax.objectives import Objective, require_process
from cm_jax.objectives._consistency import distance_of, make_consistency, same_noise
from cm_jax.types import Array, Distance, Key, NetFn


def make(
    net: NetFn,
    *,
    process: Process,
    sigma_data: float,
    total_steps: int,
    s0: int = 2,
    s1: int = 150,
    mu0: float = 0.9,
    distance: str | Distance = 'l2',
    weight: str = 'uniform',
    rho: float | None = None,
) -> Objective:
    """CT's objective; the defaults are the paper's for CIFAR-10, but for its distance, LPIPS.

    Args:
      total_steps: K, where the schedules end.
      s0, s1: levels at the start, gaps at the end; 2 <= s0 <= s1. mu0: in (0, 1).
      distance: 'l1', 'l2', 'pseudo_huber' (with c = 0), or a network: in a config 'lpips', whose
        files config.lpips names.
      weight: one of core.weighting.WEIGHTINGS.
      rho: of the grid; None is the process's, 7, or 1 on rectified flow: uniform.
    """
    require_process('ct', process, 've', 'rf')
    if total_steps < 1 or not 2 <= s0 <= s1 or not 0 < mu0 < 1:
        raise UserError(
            'ct needs total_steps >= 1, 2 <= s0 <= s1 and 0 < mu0 < 1, got '
            f'total_steps={total_steps}, s0={s0}, s1={s1}, mu0={mu0}'
        )
    denoise = precondition(net, at_boundary(process, sigma_data))

    def levels(key: Key, count: int, step: Array) -> tuple[Array, Array]:
        n = ct_num_scales(step, total_steps, s0, s1)
        i = jax.random.randint(key, (count,), 0, n - 1)
        t, r = (noise.level(process, j, n, rho) for j in (i, i + 1))
        return t, r

    return make_consistency(
        denoise,
        denoise,
        process=process,
        levels=levels,
        reach=same_noise(process),
        distance=distance_of(distance),
        weight=weight,
        sigma_data=sigma_data,
        target_rate=lambda step: ct_target_ema(step, total_steps, s0, s1, mu0),
    )
