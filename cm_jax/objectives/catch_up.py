"""CUD: catch-up distillation, without a teacher (Shao et al., arXiv 2305.10769), on rectified flow.

    E  sum_{i=1..order}  a |F_i(x_t, t) - v_i|^2 + b |F_i(x_t, t) - (x1 - x0)|^2,
    x_t = (1 - t) x0 + t x1

with squared differences averaged over the values of an image. Head i catches up with what head 1,
the velocity v, will say i steps of length h later; a Runge-Kutta slope s leads there:

    v_i = stopgrad v(x_t - i h s, t - i h)
    order 1, RK12:  s = k1 = v(x_t, t)
    order 2, RK23:  s = (k1 + k2)/2,                   k2 = v(x_t - h k1, t - h)
    order 3, RK34:  s = 5/12 k1 + 2/3 k2 - 1/12 k3,    k3 = v(x_t - h (7 k1 + k2)/4, t - 2 h)

The weights are the current ones. Where a step would pass the end, t < t_min + order h, all v_i are the
ground truth x1 - x0. The noise x1 is drawn on its own, or by a learned prior (config.prior, see
coupling.py), as in the paper on small images. `skip_scaling` of the networks is the paper's "Prior
ShakeDrop".

| paper and code | here |
| X_0 (data), X_1 (noise), t, h (dt) | x0, x1, t, h |
| g_1(f), g_2(f), g_3(f) | the heads of net: model.heads = order |
| N, TN = 16 | steps |
| adapt_cu: uniform, rule, origin | step_size: uniform, proportional, fixed |
| w1, w2; adaptive_weight | catch_up_weight, truth_weight; ramp_steps |
| prior weight 20 | prior_weight |
| two forward passes in train mode | share_dropout False: each pass its own mask |
| discrete: h = U{0 .. t N - 1}/N (uniform, one step), 1/N | discrete, any order |
"""

import itertools

import jax
import jax.numpy as jnp

from cm_jax.core.distance import l2
from cm_jax.core.ode import Velocity
from cm_jax.core.precond import flow_scalings, precondition
from cm_jax.core.process import Process, expand, perturb, rectified_flow
from cm_jax.errors import UserError, check_name
from cm_jax.objectives import Objective, keep_refs, no_refs, require_process
from cm_jax.objectives._coupling import make_coupling
from cm_jax.types import Array, Batch, DenoiseFn, Key, Metrics, NetFn, Params

STEP_SIZES = ('uniform', 'proportional', 'fixed')
OFF_GRID = 'proportional'  # the step size that has no discrete form


def targets(
    velocity: Velocity, x0: Array, x1: Array, t: Array, h: Array, order: int, eps: float = 1e-5
) -> list[Array]:
    """What heads 1 .. `order` catch up with, each of x0's shape (the module's v_i); no gradient.

    velocity(x [B,...], t [B]); x0 data, x1 noise [B,...]; t, h [B]; eps is the lowest level. It calls
    the velocity 2, 4 or 6 times, k1 first, v_1 .. v_order last.
    """
    x_t = perturb(rectified_flow(), x0, x1, t)

    def later(slope: Array, i: int) -> Array:
        return velocity(x_t - i * expand(h, x_t) * slope, jnp.maximum(t - i * h, eps))

    slope = k1 = velocity(x_t, t)
    if order > 1:
        k2 = later(k1, 1)
        slope = (k1 + k2) / 2
    if order > 2:
        k3 = later((7 * k1 + k2) / 8, 2)
        slope = 5 / 12 * k1 + 2 / 3 * k2 - 1 / 12 * k3
    ended = expand(t < eps + order * h, x0)
    found = [jnp.where(ended, x1 - x0, later(slope, i)) for i in range(1, order + 1)]
    return jax.lax.stop_gradient(found)


def draw_levels(
    key: Key, count: int, process: Process, steps: int, step_size: str, discrete: bool
) -> tuple[Array, Array]:
    """Levels t and step lengths h, both [count].

    t ~ U(t_min, t_max), and h ~ U(0, 1) t_max/N, t/N or t_max/N by `step_size`, N = steps. Discrete:
    both on the grid of t_max/N, t from 1 to N steps, and h from 0 to one less than t, or one.
    """
    key_t, key_h = jax.random.split(key)
    u, unit = jax.random.uniform(key_h, (count,)), process.t_max / steps
    if discrete:
        k = jax.random.randint(key_t, (count,), 1, steps + 1)
        return unit * k, unit * (jnp.floor(u * k) if step_size == 'uniform' else jnp.ones(count))
    t = jax.random.uniform(key_t, (count,), minval=process.t_min, maxval=process.t_max)
    lengths = {'uniform': unit * u, 'proportional': t / steps, 'fixed': jnp.full_like(t, unit)}
    return t, lengths[step_size]


def loss_weights(
    step: Array, catch_up_weight: float, truth_weight: float, ramp_steps: int
) -> tuple[Array, Array]:
    """(a, b) at a training step: constant, or from (0, 2 b) to (2 a, 0) over `ramp_steps` if > 0."""
    if not ramp_steps:
        return jnp.asarray(catch_up_weight), jnp.asarray(truth_weight)
    done = jnp.minimum(step / ramp_steps, 1)
    return 2 * done * catch_up_weight, 2 * (1 - done) * truth_weight


def check(order: int, head: int, steps: int, step_size: str, discrete: bool, **weights: float):
    """Raises UserError on settings out of their ranges."""
    check_name('step_size', step_size, STEP_SIZES)
    if order not in (1, 2, 3) or not 1 <= head <= order or steps < 1:
        raise UserError(
            'catch_up needs order 1, 2 or 3, head from 1 to order and steps >= 1, got '
            f'order={order}, head={head}, steps={steps}'
        )
    if discrete and step_size == OFF_GRID:
        raise UserError(f'catch_up: a discrete step_size is uniform or fixed, got {step_size!r}')
    if min(weights.values()) < 0:
        shown = ', '.join(f'{name}={value}' for name, value in weights.items())
        raise UserError(f'catch_up needs {" >= 0, ".join(weights)} >= 0, got {shown}')


def make(
    net: NetFn,
    *,
    process: Process,
    order: int,
    prior: NetFn | None = None,
    prior_weight: float | None = None,
    head: int = 1,
    steps: int = 16,
    step_size: str = 'uniform',
    discrete: bool = False,
    catch_up_weight: float = 1.0,
    truth_weight: float = 1.0,
    ramp_steps: int = 0,
    share_dropout: bool = False,
) -> Objective:
    """CUD's objective; the defaults are the paper's.

    Args:
      order: 1, 2 or 3 (RK12, RK23, RK34): heads of the network. `head` (1 the first) samples
        where the sampler names none, as `euler@16+head1` does.
      prior: the network of a learned coupling; None: independent noise.
      prior_weight: of the prior's KL, >= 0; None is the paper's, 20. Only where there is a prior.
      steps: N, of the sampler whose steps h is measured in.
      step_size: one of STEP_SIZES; discrete: t and h on the grid of 1/N. See `draw_levels`.
      catch_up_weight, truth_weight: a and b; ramp_steps: the length of their ramp, 0 for none. See
        `loss_weights`.
      share_dropout: the passes of student and targets have one dropout mask.
    """
    require_process('catch_up', process, 'rf')
    weights = (catch_up_weight, truth_weight, ramp_steps)
    names = ('catch_up_weight', 'truth_weight', 'ramp_steps')
    check(order, head, steps, step_size, discrete, **dict(zip(names, weights)))
    couple = make_coupling(prior, prior_weight)

    def heads(params: Params, x: Array, t: Array, label: Array | None, key: Key | None) -> list:
        return jnp.split(net(params, x, t[:, None], label, key), order, axis=-1)

    def denoiser(i: int) -> DenoiseFn:
        def one(
            params: Params,
            x: Array,
            cond: Array,
            label: Array | None = None,
            key: Key | None = None,
        ) -> Array:
            return heads(params, x, cond[:, 0], label, key)[i]

        return precondition(one, flow_scalings)

    def loss(
        params: Params, refs: tuple, teacher: Params, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, Metrics]:
        del refs, teacher
        x0, label = batch['image'], batch['label']
        key_t, key_x1, key_drop = jax.random.split(key, 3)
        t, h = draw_levels(key_t, x0.shape[0], process, steps, step_size, discrete)
        x1, prior_loss, metrics = couple(params, x0, key_x1)
        passes = itertools.count(1)

        def velocity(x: Array, t: Array) -> Array:
            own = key_drop if share_dropout else jax.random.fold_in(key_drop, next(passes))
            return heads(params, x, t, label, own)[0]

        aims = targets(velocity, x0, x1, t, h, order, process.t_min)
        found = heads(params, perturb(process, x0, x1, t), t, label, key_drop)
        catch_up = sum(l2(f, aim) for f, aim in zip(found, aims))
        truth = sum(l2(f, x1 - x0) for f in found)
        a, b = loss_weights(step, *weights)
        metrics = metrics | {'t': t, 'catch_up': catch_up, 'truth': truth}
        return a * catch_up + b * truth + prior_loss, metrics

    each = tuple(denoiser(i) for i in range(order))
    return Objective(each[head - 1], no_refs, loss, keep_refs, heads=each)
