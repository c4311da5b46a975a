"""PD: progressive distillation (Salimans and Ho, arXiv 2202.00512, algorithm 2), in x0 form.

    E  w(t) | D_theta(x_t, t) - x0_target |^2

One step of the student, from t to s, matches two Euler (DDIM) steps of the teacher, from t over the
level m between them to s, which arrive at x_s:

    x0_target = (x_s - (s/t) x_t) / (1 - s/t)

since an Euler step with D goes to (s/t) x_t + (1 - s/t) D, for both processes. The levels are those
of the sampler `ddim@n`: s(i/n) for i < n, then 0. After every `halve_every` training steps the student
becomes the teacher and n halves, until n = 1. The student and the first teacher start from the same
diffusion model (config.init_from).

`refs` holds both the teacher and n, so that the two always change together, also where a training step
is skipped because its loss or gradient is not finite. In the paper's code the learning rate falls to 0
in each stage and the optimiser begins anew: optimizer.decay 'linear' with decay_steps the lengths of
the stages. With another decay the optimiser keeps its state when the teacher changes.

| paper | here |
| eta, theta | refs, params |
| N, the student's steps | pd_num_steps |
| t, t - 0.5/N, t - 1/N | t, m, s |
| w(lambda) = max(SNR, 1) | weight 'truncated_snr' |
| 50,000 updates, 100,000 to 2 and to 1 steps | halve_every |
"""

from collections.abc import Sequence
from typing import Annotated

import jax
import jax.numpy as jnp

from cm_jax.bounds import Count, Interval, Positive
from cm_jax.core import noise, ode, weighting
from cm_jax.core.curriculum import pd_num_steps
from cm_jax.core.distance import l2
from cm_jax.core.precond import diffusion_scalings, precondition
from cm_jax.core.process import Process, Rho, expand, perturb
from cm_jax.errors import UserError
from cm_jax.objectives import Objective, require_process
from cm_jax.types import Array, Batch, Key, Metrics, NetFn, Params

Refs = dict[str, Params]  # 'teacher': its weights; 'n': the student's number of steps, int32 scalar


def grid_level(process: Process, i: Array, n: Array, rho: float | None) -> Array:
    """Returns the noise level s(i/n) of the student's grid, and 0 at i = n. `i` may be fractional."""
    s = noise.level(process, i, n + 1, rho)
    return jnp.where(i >= n, 0, s)


def two_step_target(velocity: ode.Velocity, x_t: Array, t: Array, m: Array, s: Array) -> Array:
    """Returns the x0_target (see the module) that two Euler steps of the teacher give, t to m to s.

    It has x_t's shape and no gradient; t > m > s are levels [B].
    """
    x_s = ode.euler(velocity, ode.euler(velocity, x_t, t, m), m, s)
    ratio = expand(s / t, x_t)
    return jax.lax.stop_gradient((x_s - ratio * x_t) / (1 - ratio))


def make(
    net: NetFn,
    *,
    process: Process,
    sigma_data: Positive,
    halve_every: Count | Sequence[Count],
    start_steps: Annotated[int, Interval('[2, 1073741824]')] = 1024,
    weight: str = 'truncated_snr',
    rho: Rho | None = None,
) -> Objective:
    """Returns progressive distillation's objective.

    Raises UserError on another process or weight, and on a number of steps that is no power of 2.

    Args:
      net: the student's network.
      process: 've' or 'rf'.
      sigma_data: the standard deviation of the data in [-1, 1], > 0.
      halve_every: the training steps in one stage, >= 1; or those of each of the log2(start_steps)
        stages, which lead to a student of one step.
      start_steps: the Euler steps of the first teacher, a power of 2, >= 2; the paper's are 8192 on
        CIFAR-10 and 1024 on larger images.
      weight: one of core.weighting.WEIGHTINGS.
      rho: shapes the grid. None takes the process's: 7 on 've', 1 (a uniform grid) on 'rf'.
    """
    require_process('pd', process, 've', 'rf')
    lengths = [halve_every] if isinstance(halve_every, int) else list(halve_every)
    if start_steps & (start_steps - 1):
        raise UserError(f'config.objective.start_steps must be a power of 2, got {start_steps}')
    stages = start_steps.bit_length() - 1
    if not isinstance(halve_every, int) and len(lengths) != stages:
        raise UserError(
            f'config.objective.halve_every must be a number or the lengths of all {stages} stages from '
            f'start_steps={start_steps}, got {halve_every}'
        )
    weigh = weighting.get(weight)
    denoise = precondition(net, diffusion_scalings(process, sigma_data))

    def loss(
        params: Params, refs: Refs, teacher: Params, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, Metrics]:
        del teacher, step
        x0, label = batch['image'], batch['label']
        key_t, key_eps, key_drop = jax.random.split(key, 3)
        n = refs['n']
        i = jax.random.randint(key_t, x0.shape[:1], 0, n)
        t, m, s = (grid_level(process, i + offset, n, rho) for offset in (0, 0.5, 1))
        x_t = perturb(process, x0, jax.random.normal(key_eps, x0.shape), t)
        velocity = ode.pf_ode(lambda x, t: denoise(refs['teacher'], x, t, label))
        target = two_step_target(velocity, x_t, t, m, s)
        d = l2(denoise(params, x_t, t, label, key_drop), target)
        return weigh(t, s, sigma_data) * d, {'t': t, 'gap': (t - s) / t, 'distance': d}

    def update(refs: Refs, params: Params, step: Array) -> Refs:
        n = pd_num_steps(step + 1, halve_every, start_steps)
        is_new_stage = n < refs['n']
        teacher = jax.tree.map(
            lambda teacher, student: jnp.where(is_new_stage, student, teacher),
            refs['teacher'],
            params,
        )
        return {'teacher': teacher, 'n': n}

    def init(params: Params) -> Refs:
        n = pd_num_steps(jnp.int32(0), halve_every, start_steps)
        return {'teacher': jax.tree.map(jnp.copy, params), 'n': n}

    return Objective(denoise=denoise, init=init, loss=loss, update=update)
