"""The one-step stage of Catch-Up Distillation (Shao et al., arXiv 2305.10769), on rectified flow.

    E_z  | z - v(z) - x0_hat_j(z) |^2 + ema_weight | v(z) - v_ema(z) |^2,   z ~ N(0, I)

where v(z) is the velocity at t_max, and squared differences are averaged over the values of an image.

The teacher is frozen (config.teacher), and the student starts from its weights (config.init_from). The
teacher walks from z in N equal Euler steps towards t = 0. At each level t_j = t_max (1 - j/N) of this
path, j = 0 .. N - 1, it estimates where the path ends: x0_hat_j = D(x_{t_j}, t_j). The estimate
x0_hat_0 is the teacher's sample with one step, and x0_hat_{N-1} is its sample with N steps.

The student learns to give such an estimate from z in one step. The setting `estimates` lists the j that
it learns, one after the other, each during an equal part of total_steps. This stage follows a run with
one head: RK12, or rectified flow. It uses no image of the data; it uses the labels if the network has
classes. The second term of the loss keeps the student near the moving average of its weights.

| paper's code (train_distill_update) | here |
| z, x | z, x0_hat_j |
| N | teacher_steps |
| use_list, _num | estimates, the phase |
| iterations of each of 3 phases | total_steps / 3 |
| 0.1; ema decay 0.9999 | ema_weight; ema_rate |

The paper's code builds the student without its teacher's scaling of skips (`model.skip_scaling`), as
the configs here do, and saves the student's weights themselves. It makes 50,000 pairs (z, x0_hat_j)
once, with x0_hat_j rounded to bytes. Here each training step draws new noise, from which the teacher
walks j steps and makes one more evaluation for the estimate: 9, 12 and 15 evaluations in the three
phases, beside the 4 of a step with stored pairs (the student forward, and back as 2, and its average).
In return there is no pool of pairs that has to fit in memory, has to be spread over the devices, has to
be made again when a run continues, or that the student could memorise.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from cm_jax.bounds import Count, Natural, NonNegative, Rate
from cm_jax.core import ema, ode
from cm_jax.core.distance import l2
from cm_jax.core.precond import flow_scalings, precondition
from cm_jax.core.process import Process
from cm_jax.errors import UserError
from cm_jax.objectives import Objective, require_process
from cm_jax.types import Array, Batch, DenoiseFn, Key, Metrics, NetFn, Params


def estimate(velocity: ode.Velocity, z: Array, j: Array, steps: int, t_max: float) -> Array:
    """Returns x0_hat_j = x_{t_j} - t_j v(x_{t_j}, t_j), the estimate of where the path from z ends.

    x_{t_j} is reached from z, at t_max, by j of `steps` equal Euler steps. 0 <= j < steps; j may be
    traced. The velocity is evaluated j + 1 times.
    """

    def level(i: Array) -> Array:
        return jnp.full(z.shape[0], t_max * (1 - i / steps), z.dtype)

    def euler_step(i: Array, x: Array) -> Array:
        return ode.euler(velocity, x, level(i), level(i + 1))

    x = jax.lax.fori_loop(0, j, euler_step, z)
    return ode.euler(velocity, x, level(j), jnp.zeros_like(level(j)))


def phase_estimate(step: Array, estimates: Sequence[int], total_steps: int) -> Array:
    """Returns the j of a training step, a scalar int.

    The n estimates are used one after the other, each for total_steps / n training steps; the last
    one also after total_steps.
    """
    phase = jnp.minimum(step * len(estimates) // total_steps, len(estimates) - 1)
    return jnp.asarray(estimates)[phase]


def make(
    net: NetFn,
    *,
    process: Process,
    teacher_denoise: DenoiseFn,
    total_steps: Count,
    teacher_steps: Count = 16,
    estimates: Sequence[Natural] = (8, 11, 14),
    ema_weight: NonNegative = 0.1,
    ema_rate: Rate = 0.9999,
) -> Objective:
    """Returns the objective of the one-step stage; the defaults are those of the paper's code.

    Raises UserError on another process and on estimates that `teacher_steps` does not have.

    Args:
      net: the student's network, with one head.
      process: 'rf'.
      teacher_denoise: the teacher's D. Its weights are the loss's `teacher`.
      total_steps: the training steps over which the phases are spread equally, >= 1.
      teacher_steps: N, the steps of the teacher's Euler walk, >= 1.
      estimates: the j of each phase, from 0 to N - 1.
      ema_weight: the factor, >= 0, of the distance to what the average of the weights says. With 0 no
        average is kept.
      ema_rate: the rate of that average, in [0, 1).
    """
    require_process('one_step', process, 'rf')
    estimates = tuple(estimates)
    if not estimates or max(estimates) >= teacher_steps:
        raise UserError(
            'config.objective.estimates must be numbers from 0 to teacher_steps - 1 = '
            f'{teacher_steps - 1}, got {estimates}'
        )
    denoise = precondition(net, flow_scalings)

    def loss(
        params: Params, refs: Params, teacher: Params, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, Metrics]:
        label, shape = batch['label'], batch['image'].shape
        key_z, key_drop = jax.random.split(key)
        z, t = jax.random.normal(key_z, shape), jnp.full(shape[0], process.t_max)
        velocity = ode.pf_ode(lambda x, t: teacher_denoise(teacher, x, t, label))
        j = phase_estimate(step, estimates, total_steps)
        target = jax.lax.stop_gradient(estimate(velocity, z, j, teacher_steps, process.t_max))
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

    return Objective(denoise=denoise, init=init, loss=loss, update=update)
