"""The loss that CT, iCT, CD and ECT share; each of them chooses its parts (no objective by itself).

    E  w(t, r) d( D_theta(x_t, t), stopgrad D_target(x_r, r) ),   x_t = a(t) x0 + t eps,  t > r

The parts are:
- how the pair of noise levels (t, r) is drawn;
- how x_r is reached: by adding the noise of x_t at level r, or by a step of a teacher's ODE from x_t;
- which weights the target has: the current ones, or their moving average;
- the distance d and the weighting w.

Where r = 0 the target is x0. Both passes get the same key, hence the same dropout mask.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from cm_jax.core import distance as distances
from cm_jax.core import ema, ode, weighting
from cm_jax.core.distance import DistanceFn
from cm_jax.core.process import Process, expand, perturb
from cm_jax.objectives import Objective, Pairs, keep_refs, no_refs
from cm_jax.types import Array, Batch, DenoiseFn, Distance, Key, Metrics, Params

# (key, number of examples B, step) -> (t [B], r [B]): draws the pairs of noise levels
Levels = Callable[[Key, int, Array], tuple[Array, Array]]
# (teacher, x0, eps, x_t, t, r, label) -> x_r: the noisy image at the lower level of a pair
Reach = Callable[[Params, Array, Array, Array, Array, Array, Array | None], Array]


def same_noise(process: Process) -> Reach:
    """Returns the reach of CT, iCT and ECT: x_r = a(r) x0 + r eps, with the eps of x_t."""

    def reach(
        teacher: Params, x0: Array, eps: Array, x_t: Array, t: Array, r: Array, label: Array | None
    ) -> Array:
        del teacher, x_t, t, label
        return perturb(process, x0, eps, r)

    return reach


def ode_step(solver: ode.Step, teacher_denoise: DenoiseFn) -> Reach:
    """Returns the reach of CD: one step of the teacher's probability-flow ODE from x_t to level r."""

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
    """Returns (D_theta(x_t, t), target), both of x0's shape.

    The target is stopgrad D_target(x_r, r), and x0 where r = 0. Both passes get the same key, hence
    the same dropout mask.
    """
    x_t, x_r, legal_r = noisy_pair(reach, process, teacher, x0, eps, t, r, label)
    student = denoise(params, x_t, t, label, key)
    target = denoise(target_params, x_r, legal_r, label, key)
    return student, jax.lax.stop_gradient(jnp.where(expand(r <= 0, x0), x0, target))


def noisy_pair(
    reach: Reach,
    process: Process,
    teacher: Params,
    x0: Array,
    eps: Array,
    t: Array,
    r: Array,
    label: Array | None = None,
) -> tuple[Array, Array, Array]:
    """Returns (x_t, x_r, r), with t in place of r where r = 0.

    The network needs a legal level there; its output at x_r is not used.
    """
    r = jnp.where(r <= 0, t, r)
    x_t = perturb(process, x0, eps, t)
    return x_t, reach(teacher, x0, eps, x_t, t, r, label), r


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
    num_levels: Callable[[Array], Array | int] | None = None,
) -> Objective:
    """Returns the objective that is made of these parts.

    Raises UserError if `weight` is no weighting.

    Args:
      trained: the denoiser that the loss trains.
      denoise: the denoiser that samplers see; the same network, which may be scaled differently.
      process: how noise is added to an image.
      levels: draws the pairs of noise levels.
      reach: gives x_r.
      distance: d. If it is a network, its frozen weights come with the teacher's: the loss's
        `teacher` is then the pair (weights of the teacher, weights of the distance).
      weight: the name of w, one of core.weighting.WEIGHTINGS.
      sigma_data: the standard deviation of the data in [-1, 1], for the weighting.
      target_rate: step -> the rate at which the target's weights average the current ones. None: the
        target has the current weights.
      num_levels: step -> the number of levels of the grid that `levels` draws from, if there is one.
    """
    weigh = weighting.get(weight)

    def loss(
        params: Params, refs: Any, teacher: Params, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, Metrics]:
        x0, label = batch['image'], batch['label']
        key_t, key_eps, key_drop = jax.random.split(key, 3)
        t, r = levels(key_t, x0.shape[0], step)
        eps = jax.random.normal(key_eps, x0.shape)
        teacher, measure_distance = frozen_parts(distance, teacher)
        target_params = params if target_rate is None else refs
        student, target = pair(
            trained, reach, process, params, target_params, teacher, x0, eps, t, r, label, key_drop
        )
        d = measure_distance(student, target)
        return weigh(t, r, sigma_data) * d, {'t': t, 'gap': (t - r) / t, 'distance': d}

    def difference(
        params: Params,
        teacher: Params,
        x0: Array,
        eps: Array,
        t: Array,
        r: Array,
        label: Array | None = None,
    ) -> Array:
        x_t, x_r, legal_r = noisy_pair(reach, process, teacher, x0, eps, t, r, label)
        x, levels = jnp.concatenate([x_t, x_r]), jnp.concatenate([t, legal_r])
        labels = None if label is None else jnp.concatenate([label, label])
        student, target = jnp.split(trained(params, x, levels, labels), 2)  # one pass for both
        return student - jnp.where(expand(r <= 0, x0), x0, target)

    pairs = Pairs(draw=levels, difference=difference, num_levels=num_levels)
    if target_rate is None:
        return Objective(denoise=denoise, init=no_refs, loss=loss, update=keep_refs, pairs=pairs)

    def copy_params(params: Params) -> Params:
        return jax.tree.map(jnp.copy, params)

    def average_params(refs: Params, params: Params, step: Array) -> Params:
        return ema.update(refs, params, target_rate(step))

    return Objective(
        denoise=denoise, init=copy_params, loss=loss, update=average_params, pairs=pairs
    )


def frozen_parts(distance: DistanceFn | Distance, frozen: Params) -> tuple[Params, DistanceFn]:
    """Returns (weights of the teacher, distance function), from the `teacher` that the loss is given.

    Where the distance is a network, `frozen` is the pair (weights of the teacher, weights of the
    distance), and the function returned uses the second.
    """
    if not isinstance(distance, Distance):
        return frozen, distance
    teacher, weights = frozen
    return teacher, lambda a, b: distance.apply(weights, a, b)


def distance_of(distance: str | Distance) -> DistanceFn | Distance:
    """Returns the distance of this name, or `distance` itself if it is a network (LPIPS).

    Raises UserError on an unknown name (see core.distance.get).
    """
    return distances.get(distance) if isinstance(distance, str) else distance
