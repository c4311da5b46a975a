"""The one-step stage of Catch-Up Distillation (Shao et al., arXiv 2305.10769), on rectified flow.

    E_z  | z - v(z) - x0_hat_j(z) |^2 + ema_weight | v(z) - v_ema(z) |^2,   z ~ N(0, I)

where v(z) is the velocity at t_max, and squared differences are averaged over the values of an image.
The frozen teacher (config.teacher; the student starts from it, too: config.init_from) walks from z in N
equal Euler steps towards t = 0, and says at each t_j = t_max (1 - j/N) where it will end: x0_hat_j =
D(x_{t_j}, t_j), j = 0 .. N - 1. The first, x0_hat_0, is one step of the teacher, and the last its
sample. The student learns to say, in one step, one of them after the other: of total_steps, each
estimate j in `estimates` has an equal part. It follows a run of one head: RK12, or rectified flow. No
image of the data is used; the labels are, by a network with classes. The second term holds the student
near the moving average of its weights.

| paper's code (train_distill_update) | here |
| z, x | z, x0_hat_j |
| N | teacher_steps |
| use_list, _num | estimates, the phase |
| iterations of each of 3 phases | total_steps / 3 |
| 0.1; ema decay 0.9999 | ema_weight; ema_rate |

That code makes 50,000 pairs (z, x0_hat_j) once, with x0_hat_j rounded to bytes. Here each step has new
noise, and the teacher walks j steps and one for it: 9, 12 and 15 evaluations in the three phases. With
the digits' network on two CPU cores a step takes 4 to 5.5 times as long as one with stored pairs would.
For it there is no pool to hold in memory, to spread over devices, to make again where a run continues,
or to learn by heart.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from cm_jax.core import ema, ode
from cm_jax.core.distance import l2
from cm_jax.core.precond import flow_scalings, precondition
from cm_jax.core.process import Process
from cm_jax.errors import UserError
from cm_jax.objectives import Objective, require_process
from cm_jax.types import Array, Batch, DenoiseFn, Key, Metrics, NetFn, Params


def estimate(velocity: ode.Velocity, z: Array, j: Array, steps: int, t_max: float) -> Array:
    """x0_hat_j = x_{t_j} - t_j v(x_{t_j}, t_j): where the path from z seems to end after j Euler steps.

    Of `steps` equal ones from t_max; 0 <= j < steps, and may be traced: j + 1 evaluations then.
    """

    def level(i: Array) -> Array:
        return jnp.full(z.shape[0], t_max * (1 - i / steps), z.dtype)

    def walk(i: Array, x: Array) -> Array:
        return ode.euler(velocity, x, level(i), level(i + 1))

    x = jax.lax.fori_loop(0, j, walk, z)
    return ode.euler(velocity, x, level(j), jnp.zeros_like(level(j)))


def phase_estimate(step: Array, estimates: Sequence[int], total_steps: int) -> Array:
    """The j of a training step: the n estimates in turn, each for total_steps / n steps."""
    phase = jnp.minimum(step * len(estimates) // total_steps, len(estimates) - 1)
    return jnp.asarray(estimates)[phase]


def make(
    net: NetFn,
    *,
    process: Process,
    teacher_denoise: DenoiseFn,
    total_steps: int,
    teacher_steps: int = 16,
    estimates: Sequence[int] = (8, 11, 14),
    ema_weight: float = 0.1,
    ema_rate: float = 0.9999,
) -> Objective:
    """The one-step stage's objective; the defaults are the paper's code's.

    Args:
      teacher_denoise: the teacher's D; its weights are the loss's `teacher`.
      total_steps: training steps over which the phases are spread equally.
      teacher_steps: N, of the teacher's Euler walk. estimates: the j of each phase, in [0, N).
      ema_weight: >= 0, of the distance to what the average of the weights says; 0 keeps no average.
      ema_rate: of that average, in [0, 1).
    """
    require_process('one_step', process, 'rf')
    if total_steps < 1 or teacher_steps < 1 or ema_weight < 0 or not 0 <= ema_rate < 1:
        raise UserError(
            'one_step needs total_steps >= 1, teacher_steps >= 1, ema_weight >= 0 and '
            f'0 <= ema_rate < 1, got total_steps={total_steps}, teacher_steps={teacher_steps}, '
            f'ema_weight={ema_weight}, ema_rate={ema_rate}'
        )
    estimates = tuple(estimates)
    if not estimates or min(estimates) < 0 or max(estimates) >= teacher_steps:
        raise UserError(
            f'config.objective.estimates must be numbers from 0 to teacher_steps - 1 = '
            f'{teacher_steps - 1}, got {estimates}'
        )
    denoise = precondition(net, flow_scalings)

    def loss(
        params: Params, refs: Params, teacher: Params, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, Metrics]:
        label, shape = batch['label'], batch['image'].shape
        key_z, key_drop = jax.random.split(key)
        z, t = jax.random.normal(key_z, shape), jnp.full(shape[0], process.t_max)
        walk = ode.pf_ode(lambda x, t: teacher_denoise(teacher, x, t, label))
        j = phase_estimate(step, estimates, total_steps)
        target = jax.lax.stop_gradient(estimate(walk, z, j, teacher_steps, process.t_max))
        x0_hat = denoise(params, z, t, label, key_drop)  # z - t_max v(z, t_max)
        d = l2(x0_hat, target)
        metrics = {'t': t, 'distance': d, 'estimate': jnp.full(shape[0], j)}
        if not ema_weight:
            return d, metrics
        average = jax.lax.stop_gradient(denoise(refs, z, t, label))
        drift = l2(x0_hat, average) / process.t_max**2  # |v - v_ema|^2
        return d + ema_weight * drift, metrics | {'drift': drift}

    def init(params: Params) -> Params:
        return jax.tree.map(jnp.copy, params) if ema_weight else ()

    def update(refs: Params, params: Params, step: Array) -> Params:
        del step
        return ema.update(refs, params, ema_rate) if ema_weight else ()

    return Objective(denoise, init, loss, update)
