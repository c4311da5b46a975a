"""CD: consistency distillation of a diffusion teacher (Song et al., arXiv 2303.01469, algorithm 2).

    E  w(t) d( D_theta(x_t, t), D_target(x_r, r) ),   x_t = x0 + t eps,
    x_r = one step of the teacher's probability-flow ODE from x_t, from t to r

t and r are neighbours on the grid of `noise.levels` with N levels; each of the N - 1 pairs is drawn
with the same probability. The student usually starts from the teacher's weights (config.init_from).
With `guidance` w the teacher's step follows D(none) + w (D(label) - D(none)) (arXiv 2207.12598). On
rectified flow, for the comparison with Catch-Up Distillation (arXiv 2305.10769), x_t = (1 - t) x0 +
t eps and the grid is uniform.

| paper and code | here |
| t_{n+1}, t_n | t, r |
| theta, theta^-, phi | params, refs (params if target_ema = 0), teacher |
| Phi, the ODE solver | solver: 'heun' or 'euler' |
| N | levels |
| mu | target_ema |
"""

from typing import Annotated

import jax

from cm_jax.bounds import Interval, NonNegative, Positive, Rate
from cm_jax.core import noise, ode
from cm_jax.core.guidance import guided
from cm_jax.core.precond import at_boundary, precondition
from cm_jax.core.process import Process, Rho
from cm_jax.errors import check_name
from cm_jax.objectives import Objective, require_process
from cm_jax.objectives._consistency import distance_of, make_consistency, ode_step
from cm_jax.types import Array, DenoiseFn, Distance, Key, NetFn

SOLVERS = {'heun': ode.heun, 'euler': ode.euler}


def make(
    net: NetFn,
    *,
    process: Process,
    sigma_data: Positive,
    teacher_denoise: DenoiseFn,
    levels: Annotated[int, Interval('[2, 1000000]')] = 18,
    solver: str = 'heun',
    target_ema: Rate = 0.0,
    distance: str | Distance = 'l2',
    weight: str = 'uniform',
    guidance: NonNegative = 1.0,
    rho: Rho | None = None,
) -> Objective:
    """Returns CD's objective.

    The defaults are the paper's for CIFAR-10, except the distance, which is LPIPS there. Raises
    UserError on another process, solver, distance or weight.

    Args:
      net: the student's network.
      process: 've' or 'rf'.
      sigma_data: the standard deviation of the data in [-1, 1], > 0.
      teacher_denoise: the teacher's D. Its weights are the loss's `teacher`.
      levels: N, the number of noise levels, >= 2. The paper has 18 on CIFAR-10 and 40 on ImageNet-64.
      solver: the solver of the teacher's ODE, one of SOLVERS.
      target_ema: the rate of the target's moving average, in [0, 1). With 0 the target has the
        current weights.
      distance: 'l1', 'l2', 'pseudo_huber' (with c = 0) or a network. A config names the network
        'lpips', and its files in config.lpips.
      weight: one of core.weighting.WEIGHTINGS.
      guidance: w >= 0, the scale of the teacher's classifier-free guidance. 1 means no guidance.
      rho: shapes the grid. None takes the process's: 7 on 've', 1 (a uniform grid) on 'rf'.
    """
    require_process('cd', process, 've', 'rf')
    check_name('solver', solver, SOLVERS)
    denoise = precondition(net, at_boundary(process, sigma_data))
    grid = noise.levels(process, levels, rho)

    def draw_pair(key: Key, count: int, step: Array) -> tuple[Array, Array]:
        del step
        i = jax.random.randint(key, (count,), 0, levels - 1)
        return grid[i], grid[i + 1]

    return make_consistency(
        denoise,
        denoise,
        process=process,
        levels=draw_pair,
        reach=ode_step(SOLVERS[solver], guided(teacher_denoise, guidance)),
        distance=distance_of(distance),
        weight=weight,
        sigma_data=sigma_data,
        target_rate=(lambda step: target_ema) if target_ema else None,
        num_levels=lambda step: levels,
    )
