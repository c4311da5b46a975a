"""The body of consistency training: CT, iCT, CD and ECT pick its parts (no objective by itself).

    E  w(t, r) d( D_theta(x_t, t), stopgrad D_target(x_r, r) ),   x_t = a(t) x0 + t eps,  t > r

The parts: how the levels (t, r) are drawn; how x_r is reached, with the noise of x_t or by a
teacher's ODE step; whose weights the target has, the current ones or their moving average; distance
and weighting. Where r = 0 the target is x0. Both passes get one key, hence one dropout mask.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from cm_jax.core import distance as distances
from cm_jax.core import ema, ode, weighting
from cm_jax.core.distance import DistanceFn
from cm_jax.core.process import Process, expand, perturb
from cm_jax.objectives import Objective, keep_refs, no_refs
from cm_jax.types import Array, Batch, DenoiseFn, Distance, Key, Metrics, Params

# (key, number of examples, step) -> t [B], r [B]
Levels = Callable[[Key, int, Array], tuple[Array, Array]]
# (teacher, x0, eps, x_t, t, r, label) -> x_r
Reach = Callable[[Params, Array, Array, Array, Array, Array, Array | None], Array]


def same_noise(process: Process) -> Reach:
    """x_r = a(r) x0 + r eps, with the eps of x_t: the reach of CT, iCT and ECT."""
    return lambda teacher, x0, eps, x_t, t, r, label: perturb(process, x0, eps, r)


def ode_step(solver: ode.Step, teacher_denoise: DenoiseFn) -> Reach:
    """x_r by one step of the teacher's probability-flow ODE from x_t: the reach of CD."""

    def reach(
        teacher: Params, x0: Array, eps: Array, x_t: Array, t: Array, r: Array, label: Array | None
    ) -> Array:
        velocity = ode.pf_ode(lambda x, t: teacher_denoise(teacher, x, t, label))
        return solver(velocity, x_t, t, r)

    return reach


def pair(
    denoise: DenoiseFn,
    reach: Reach,
    process: Process,
    params: Params,
    target_params: Params,
    teacher: Params,
    x0: Array,
    eps: Array,
    t: Array,
    r: Array,
    label: Array | None = None,
    key: Key | None = None,
) -> tuple[Array, Array]:
    """(D_theta(x_t, t), target): the target is stopgrad D_target(x_r, r), and x0 where r = 0.

    Shapes of x0. Both passes get the same key, hence the same dropout mask.
    """
    clean = r <= 0
    r = jnp.where(clean, t, r)  # any legal level: the pass is not used there
    x_t = perturb(process, x0, eps, t)
    x_r = reach(teacher, x0, eps, x_t, t, r, label)
    student = denoise(params, x_t, t, label, key)
    target = denoise(target_params, x_r, r, label, key)
    return student, jax.lax.stop_gradient(jnp.where(expand(clean, x0), x0, target))


def make_consistency(
    trained: DenoiseFn,
    denoise: DenoiseFn,
    *,
    process: Process,
    levels: Levels,
    reach: Reach,
    distance: DistanceFn | Distance,
    weight: str,
    sigma_data: float,
    target_rate: Callable[[Array], Array | float] | None = None,
) -> Objective:
    """The objective with these parts.

    Args:
      trained, denoise: D in training, and as samplers see it.
      distance: if it is a network, its weights are frozen too: the loss's `teacher` is then the pair
        (weights of the teacher, weights of the distance).
      weight: one of core.weighting.WEIGHTINGS.
      target_rate: rate of the target's moving average by step; None: the current weights.
    """
    weigh = weighting.get(weight)

    def loss(
        params: Params, refs: Any, teacher: Params, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, Metrics]:
        x0, label = batch['image'], batch['label']
        key_t, key_eps, key_drop = jax.random.split(key, 3)
        t, r = levels(key_t, x0.shape[0], step)
        eps = jax.random.normal(key_eps, x0.shape)
        teacher, measure = frozen_parts(distance, teacher)
        target_params = params if target_rate is None else refs
        student, target = pair(
            trained, reach, process, params, target_params, teacher, x0, eps, t, r, label, key_drop
        )
        d = measure(student, target)
        return weigh(t, r, sigma_data) * d, {'t': t, 'gap': (t - r) / t, 'distance': d}

    if target_rate is None:
        return Objective(denoise, no_refs, loss, keep_refs)

    def follow(refs: Params, params: Params, step: Array) -> Params:
        return ema.update(refs, params, target_rate(step))

    return Objective(denoise, lambda params: jax.tree.map(jnp.copy, params), loss, follow)


def frozen_parts(distance: DistanceFn | Distance, frozen: Params) -> tuple[Params, DistanceFn]:
    """(weights of the teacher, the distance with its weights), from what the loss is given."""
    if not isinstance(distance, Distance):
        return frozen, distance
    teacher, weights = frozen
    return teacher, lambda a, b: distance.apply(weights, a, b)


def distance_of(distance: str | Distance) -> DistanceFn | Distance:
    """A distance by name (see core.distance.get), or a network that the program built: LPIPS."""
    return distances.get(distance) if isinstance(distance, str) else distance
