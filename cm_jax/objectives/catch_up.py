"""CUD: catch-up distillation, without a teacher (Shao et al., arXiv 2305.10769), on rectified flow.

    E  sum_{i=1..order}  a |F_i(x_t, t) - v_i|^2 + b |F_i(x_t, t) - (x1 - x0)|^2,
    x_t = (1 - t) x0 + t x1

with squared differences averaged over the values of an image. F_1 .. F_order are the heads of the
network, and head 1 is the velocity v. Head i learns at (x_t, t) what head 1 says i steps of length h
later on the path to the data, v_i; a Runge-Kutta slope s leads there:

    v_i = stopgrad v(x_t - i h s, t - i h)
    order 1, RK12:  s = k1 = v(x_t, t)
    order 2, RK23:  s = (k1 + k2)/2,                   k2 = v(x_t - h k1, t - h)
    order 3, RK34:  s = 5/12 k1 + 2/3 k2 - 1/12 k3,    k3 = v(x_t - h (7 k1 + k2)/4, t - 2 h)

The weights behind v_i are the current ones. Where a step would pass the end of the path, at
t < t_min + order h, every v_i is the ground truth x1 - x0. The noise x1 does not depend on the image,
or it is drawn from a learned prior (config.prior; see _coupling.py), as in the paper on small images.
`skip_scaling` of the networks is the paper's "Prior ShakeDrop".

The paper's code for ImageNet adds high_frequency_weight times the mean of the largest fifth of

    | W(x1 - F_order(x_t, t)) - W(x0) | / 2

where W gives the details of the finest level of a wavelet transform (core.wavelet); the half is there
because the code takes images in [0, 1].

| paper and code | here |
| X_0 (data), X_1 (noise), t, h (dt) | x0, x1, t, h |
| g_1(f), g_2(f), g_3(f) | the heads of the network: model.heads = order |
| N, TN = 16 | steps |
| adapt_cu: uniform, rule, origin | step_size: uniform, proportional, fixed |
| w1, w2; adaptive_weight | catch_up_weight, truth_weight; ramp_steps |
| prior weight 20 | prior_weight |
| two forward passes in train mode | share_dropout False: each pass has its own dropout mask |
| loss_dwt (cm/karras_diffusion.py of the code for ImageNet) | high_frequency_weight 1 |
| discrete: h = U{0 .. t N - 1}/N (uniform, one step), 1/N | discrete, any order |
"""

import itertools
from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp

from cm_jax.bounds import Count, Interval, Natural, NonNegative
from cm_jax.core import wavelet
from cm_jax.core.distance import l2
from cm_jax.core.ode import Velocity
from cm_jax.core.precond import flow_scalings, precondition
from cm_jax.core.process import Process, expand, perturb, rectified_flow
from cm_jax.errors import UserError, check_name
from cm_jax.objectives import Objective, keep_refs, no_refs, require_process
from cm_jax.objectives._coupling import make_coupling
from cm_jax.types import Array, Batch, DenoiseFn, Key, Metrics, NetFn, Params

STEP_SIZES = ('uniform', 'proportional', 'fixed')
OFF_GRID = 'proportional'  # the one step size that has no discrete form
LARGEST = 0.2  # the share of the details that `high_frequency` averages
# (params, x, t [B], label, key) -> the velocities that the heads give, each of x's shape, head 1 first
Heads = Callable[[Params, Array, Array, Array | None, Key | None], list[Array]]


def targets(
    velocity: Velocity, x0: Array, x1: Array, t: Array, h: Array, order: int, eps: float = 1e-5
) -> list[Array]:
    """Returns the targets v_1 .. v_order of the heads (see the module), without gradient.

    Each has x0's shape. `velocity` is called 2, 4 or 6 times for order 1, 2 or 3: first for k1, k2, ..,
    then for v_1 .. v_order.

    Args:
      velocity: (x [B,...], t [B]) -> v.
      x0, x1: data and noise [B,...].
      t, h: noise levels and step lengths [B].
      order: 1, 2 or 3.
      eps: the lowest noise level.
    """
    x_t = perturb(rectified_flow(), x0, x1, t)

    def velocity_after(i: int, slope: Array) -> Array:
        return velocity(x_t - i * expand(h, x_t) * slope, jnp.maximum(t - i * h, eps))

    slope = k1 = velocity(x_t, t)
    if order > 1:
        k2 = velocity_after(1, k1)
        slope = (k1 + k2) / 2
    if order > 2:
        k3 = velocity_after(2, (7 * k1 + k2) / 8)
        slope = 5 / 12 * k1 + 2 / 3 * k2 - 1 / 12 * k3
    past_end = expand(t < eps + order * h, x0)
    velocities = [velocity_after(i, slope) for i in range(1, order + 1)]
    return jax.lax.stop_gradient([jnp.where(past_end, x1 - x0, v_i) for v_i in velocities])


def draw_levels(
    key: Key, count: int, process: Process, steps: int, step_size: str, discrete: bool
) -> tuple[Array, Array]:
    """Returns noise levels t and step lengths h, both [count]; N = steps.

    t ~ U(t_min, t_max), and h depends on `step_size`:
      'uniform': h ~ U(0, 1) t_max/N
      'proportional': h = t/N
      'fixed': h = t_max/N

    If `discrete`, t and h are multiples of t_max/N: t = k t_max/N with k uniform in 1 .. N. For
    'uniform' h = j t_max/N with j uniform in 0 .. k - 1, and for 'fixed' h = t_max/N.
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
    """Returns the weights (a, b) of the two terms of the loss at a training step.

    Without a ramp (`ramp_steps` = 0) they are (catch_up_weight, truth_weight). With one they go
    linearly from (0, 2 truth_weight) to (2 catch_up_weight, 0) over `ramp_steps` steps.
    """
    if not ramp_steps:
        return jnp.asarray(catch_up_weight), jnp.asarray(truth_weight)
    progress = jnp.minimum(step / ramp_steps, 1)
    return 2 * progress * catch_up_weight, 2 * (1 - progress) * truth_weight


def split_heads(net: NetFn, order: int) -> Heads:
    """Returns the function that gives the outputs of all `order` heads from one pass of `net`."""

    def heads(
        params: Params, x: Array, t: Array, label: Array | None, key: Key | None
    ) -> list[Array]:
        return jnp.split(net(params, x, t[:, None], label, key), order, axis=-1)

    return heads


def head_denoiser(heads: Heads, index: int) -> DenoiseFn:
    """Returns the denoiser D(x, t) = x - t v of one head; `index` 0 is head 1."""

    def head_net(
        params: Params, x: Array, cond: Array, label: Array | None = None, key: Key | None = None
    ) -> Array:
        return heads(params, x, cond[:, 0], label, key)[index]

    return precondition(head_net, flow_scalings)


def summed_l2(predictions: list[Array], target_velocities: list[Array]) -> Array:
    """Returns the squared differences [B] of the heads from their targets, summed over the heads."""
    pairs = zip(predictions, target_velocities)
    distances = [l2(prediction, target) for prediction, target in pairs]
    return sum(distances[1:], start=distances[0])


def high_frequency(prediction: Array, velocity: Array) -> Array:
    """Returns the mean of the largest fifth of the differences of two images' details, [B].

    The images are (x1 - prediction)/2 and (x1 - velocity)/2, so that x1 [B,H,W,C] cancels. Their
    details are the absolute values of the three high-pass bands of `wavelet.analyse`.
    """
    details = wavelet.analyse((velocity - prediction) / 2)[1:]
    sizes = jnp.abs(jnp.moveaxis(details, 1, 0)).reshape(prediction.shape[0], -1)
    largest, _ = jax.lax.top_k(sizes, max(1, int(LARGEST * sizes.shape[1])))
    return jnp.mean(largest, axis=1)


def make(
    net: NetFn,
    *,
    process: Process,
    order: Annotated[int, Interval('[1, 3]')],
    prior: NetFn | None = None,
    prior_weight: NonNegative | None = None,
    head: Annotated[int, Interval('[1, 3]')] = 1,
    steps: Count = 16,
    step_size: str = 'uniform',
    discrete: bool = False,
    catch_up_weight: NonNegative = 1.0,
    truth_weight: NonNegative = 1.0,
    ramp_steps: Natural = 0,
    share_dropout: bool = False,
    high_frequency_weight: NonNegative = 0.0,
) -> Objective:
    """Returns CUD's objective; the defaults are those of the paper's code for CIFAR-10.

    Raises UserError on another process and on settings that contradict each other.

    Args:
      net: the network that is trained; it has `order` heads.
      process: 'rf'.
      order: 1, 2 or 3 (RK12, RK23, RK34), the number of heads.
      prior: the network of a learned coupling. None: the noise does not depend on the image.
      prior_weight: the factor of the prior's KL in the loss, >= 0. None takes the paper's, 20. To be
        set only where there is a prior.
      head: the head that samples if the sampler does not name one, as `euler@16+head1` does; from 1
        to `order`.
      steps: N, >= 1, the number of steps of a sampler; the lengths h are drawn in units of t_max/N.
      step_size: how the step lengths are drawn, one of STEP_SIZES. See `draw_levels`.
      discrete: whether t and h are multiples of t_max/N.
      catch_up_weight, truth_weight: a and b, >= 0. See `loss_weights`.
      ramp_steps: the length in training steps of the ramp of a and b, >= 0; 0 means no ramp.
      share_dropout: whether the passes of the student and of its targets have the same dropout mask.
      high_frequency_weight: the factor of `high_frequency` of the last head, >= 0; 1 in the paper's
        code for ImageNet. 0 means that it is not computed.
    """
    require_process('catch_up', process, 'rf')
    check_name('step_size', step_size, STEP_SIZES)
    if head > order:
        raise UserError(f'catch_up needs a head from 1 to order = {order}, got head={head}')
    if discrete and step_size == OFF_GRID:
        raise UserError(f'catch_up: a discrete step_size is uniform or fixed, got {step_size!r}')
    couple = make_coupling(prior, prior_weight)
    heads = split_heads(net, order)

    def loss(
        params: Params, refs: tuple, teacher: Params, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, Metrics]:
        del refs, teacher
        x0, label = batch['image'], batch['label']
        key_t, key_x1, key_drop = jax.random.split(key, 3)
        t, h = draw_levels(key_t, x0.shape[0], process, steps, step_size, discrete)
        x1, prior_loss, prior_metrics = couple(params, x0, key_x1)
        passes = itertools.count(1)

        def velocity(x: Array, t: Array) -> Array:
            key_pass = key_drop if share_dropout else jax.random.fold_in(key_drop, next(passes))
            return heads(params, x, t, label, key_pass)[0]

        v_targets = targets(velocity, x0, x1, t, h, order, process.t_min)
        predictions = heads(params, perturb(process, x0, x1, t), t, label, key_drop)
        catch_up = summed_l2(predictions, v_targets)
        truth = summed_l2(predictions, [x1 - x0] * order)
        a, b = loss_weights(step, catch_up_weight, truth_weight, ramp_steps)
        metrics = {**prior_metrics, 't': t, 'catch_up': catch_up, 'truth': truth}
        total = a * catch_up + b * truth + prior_loss
        if not high_frequency_weight:
            return total, metrics
        details = high_frequency(predictions[-1], x1 - x0)
        return total + high_frequency_weight * details, metrics | {'high_frequency': details}

    denoisers = tuple(head_denoiser(heads, index) for index in range(order))
    return Objective(
        denoise=denoisers[head - 1], init=no_refs, loss=loss, update=keep_refs, heads=denoisers
    )
