"""MeanFlow: the average velocity between two times (Geng et al., arXiv 2505.13447), rectified flow.

    u(x_t, t, r) = 1/(t - r) times the integral of v(x_s, s) ds from r to t,   x_t = (1 - t) x0 + t x1

Its derivative along the path satisfies u = v - (t - r) du/dt, which is the target (equation 9):

    target = stopgrad(v - (t - r) du/dt),   (u, du/dt) = jvp(u; (x_t, t, r); (v, 1, 0)),   v = x1 - x0
    d = sum of (u - target)^2 over the values of an image,   loss = d / stopgrad(d + norm_eps)^norm_p

With r = t the target is v and the loss that of rectified flow, up to its weight. The network takes two
times, t and h = t - r (`model.times = 2`). It is a flow map: x_r = x_t - (t - r) u(x_t, t, r), and one
evaluation, the jump from t_max to 0, gives an image.

Both times are logit-normal, each between t_min and t_max of the process, under one of two laws:

    'v0' (the paper's)         t and r have one law, and the larger of the two is t
    'v1' (that of its code)    r has a law of its own, and is replaced by min(t, r)

and then r = t with the probability `equal_share`. With guidance v is replaced by (appendix B.1)

    guidance v + guidance_mix u(x_t, t, t, label) + (1 - guidance - guidance_mix) u(x_t, t, t, no label)

without gradient and without dropout, so that one evaluation gives a guided image; its weight in the
words of core/guidance.py is guidance / (1 - guidance_mix). An image whose label was dropped
(`model.label_dropout`) has that target too: in the mean over images it is the velocity without label.

| paper and code (Gsunshine/py-meanflow, Gsunshine/meanflow) | here |
| x, e, z | x0, x1, x_t |
| tr_sampler; P_mean_t, P_std_t, P_mean_r, P_std_r | time_law; p_mean, p_std, r_mean, r_std |
| 1 - ratio; data_proportion | equal_share |
| norm_p, norm_eps | norm_p, norm_eps |
| omega, kappa | guidance, guidance_mix |
| AugmentPipe(p, yflip=0, rotate_frac=0) | augment, `upright` in core/augment.py |
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from cm_jax.bounds import NonNegative, Positive, Real, Share
from cm_jax.core import augment as augmentation
from cm_jax.core import noise
from cm_jax.core.process import Process, expand, perturb
from cm_jax.errors import UserError, check_name
from cm_jax.objectives import Objective, keep_refs, no_refs, require_process
from cm_jax.types import Array, Batch, Key, Metrics, NetFn, Params

AverageVelocity = Callable[
    [Array, Array, Array], Array
]  # (z [B,...], t [B], h [B]) -> u of z's shape
AUGMENT, SECOND, EQUAL = 0xA06, 1, 2  # folded into a key: give the keys of further draws


class TimeLaw(NamedTuple):
    """The means and standard deviations of the logits of t and of r."""

    p_mean: float
    p_std: float
    r_mean: float
    r_std: float


TIME_LAWS = {'v0': TimeLaw(-2.0, 2.0, -2.0, 2.0), 'v1': TimeLaw(-0.6, 1.6, -4.0, 1.6)}


def velocity_and_derivative(
    u: AverageVelocity, z: Array, v: Array, t: Array, r: Array
) -> tuple[Array, Array]:
    """Returns u at (z, t, t - r) and its derivative du/dt along the path, both of z's shape.

    Along the path z moves with the velocity v, t with 1, and r stays, so h = t - r moves with 1.

    Args:
      u: the average velocity.
      z, v: places on the paths and velocities there [B,...].
      t, r: times [B], t >= r.
    """
    at, tangents = (z, t, r), (v, jnp.ones_like(t), jnp.zeros_like(r))
    return jax.jvp(lambda z, t, r: u(z, t, t - r), at, tangents)


def squared_error(u: Array, dudt: Array, v: Array, t: Array, r: Array) -> Array:
    """Returns the sum of (u - stopgrad(v - (t - r) du/dt))^2 over the values of each example, [B]."""
    target = jax.lax.stop_gradient(v - expand(t - r, u) * dudt)
    return jnp.sum(((u - target) ** 2).reshape(u.shape[0], -1), axis=1)


def loss_of_example(
    u: Array,
    dudt: Array,
    v: Array,
    t: Array,
    r: Array,
    norm_eps: float = 1e-3,
    norm_p: float = 0.75,
) -> Array:
    """Returns d / stopgrad(d + norm_eps)^norm_p for each example, [B], with d = `squared_error`.

    Its gradient flows through u alone. u, dudt and v are [B,...], and t and r [B].
    """
    d = squared_error(u, dudt, v, t, r)
    return d / jax.lax.stop_gradient(d + norm_eps) ** norm_p


def draw_times(
    key: Key, count: int, process: Process, time_law: str, law: TimeLaw, equal_share: float
) -> tuple[Array, Array]:
    """Returns times t >= r of the process, [count] each, under the law of that name (see above)."""

    def drawn(key: Key, mean: float, std: float) -> Array:
        u = noise.logit_normal(key, count, mean, std)
        return process.t_min + (process.t_max - process.t_min) * u

    t = drawn(key, law.p_mean, law.p_std)
    r = drawn(jax.random.fold_in(key, SECOND), law.r_mean, law.r_std)
    is_equal = jax.random.uniform(jax.random.fold_in(key, EQUAL), (count,)) < equal_share
    later = jnp.maximum(t, r) if time_law == 'v0' else t
    return later, jnp.where(is_equal, later, jnp.minimum(t, r))


def make(
    net: NetFn,
    *,
    process: Process,
    time_law: str = 'v1',
    p_mean: Real | None = None,
    p_std: Positive | None = None,
    r_mean: Real | None = None,
    r_std: Positive | None = None,
    equal_share: Share = 0.25,
    norm_eps: Positive = 1e-3,
    norm_p: NonNegative = 0.75,
    guidance: NonNegative = 1.0,
    guidance_mix: Share = 0.0,
    augment: Share = 0.0,
) -> Objective:
    """Returns MeanFlow's objective; the defaults are those of the paper's code on CIFAR-10.

    Raises UserError on another process, on an unknown law, and on guidance_mix without guidance.

    Args:
      net: the network of two times that is trained; its output is the average velocity.
      process: 'rf'.
      time_law: 'v0' or 'v1'.
      p_mean, p_std, r_mean, r_std: the means and the standard deviations of the logits of t and of r;
        p_std, r_std > 0. None takes those of the law: -2, 2, -2, 2 (v0) or -0.6, 1.6, -4, 1.6 (v1).
      equal_share: the probability of r = t, in [0, 1].
      norm_eps, norm_p: of the adaptive weight; norm_eps > 0. With norm_p = 0 there is none.
      guidance: omega, >= 0, with 1 for none. It needs classes and `model.label_dropout`.
      guidance_mix: kappa, in [0, 1].
      augment: the probability of each augmentation, in [0, 1], without flips upside down and rotations;
        0.12 on CIFAR-10. 0 means none. Otherwise the network must accept the augmentation labels.
    """
    require_process('mean_flow', process, 'rf')
    check_name('config.objective.time_law', time_law, TIME_LAWS)
    if guidance_mix and guidance == 1:
        raise UserError(
            f'config.objective.guidance_mix = {guidance_mix} needs a guidance, which is 1'
        )
    given = {'p_mean': p_mean, 'p_std': p_std, 'r_mean': r_mean, 'r_std': r_std}
    law = TIME_LAWS[time_law]._replace(**{k: v for k, v in given.items() if v is not None})

    def jump(
        params: Params,
        x: Array,
        t: Array,
        r: Array,
        label: Array | None = None,
        key: Key | None = None,
    ) -> Array:
        u = net(params, x, jnp.stack([t, t - r], axis=1), label, key)
        return x - expand(t - r, x) * u.astype(x.dtype)

    def denoise(
        params: Params, x: Array, t: Array, label: Array | None = None, key: Key | None = None
    ) -> Array:
        return jump(params, x, t, jnp.zeros_like(t), label, key)

    def loss(
        params: Params, refs: tuple, teacher: Params, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, Metrics]:
        del refs, teacher, step
        x0, label = batch['image'], batch['label']
        told = jnp.zeros((x0.shape[0], 0), x0.dtype)  # the augmentation labels
        if augment:
            key_augment = jax.random.fold_in(key, AUGMENT)
            x0, told = augmentation.augment(key_augment, x0, augment, upright=True)
        key_t, key_x1, key_drop = jax.random.split(key, 3)
        t, r = draw_times(key_t, x0.shape[0], process, time_law, law, equal_share)
        x1 = jax.random.normal(key_x1, x0.shape)
        x_t, v = perturb(process, x0, x1, t), x1 - x0

        def u(z: Array, t: Array, h: Array, label: Array | None, key: Key | None) -> Array:
            cond = jnp.concatenate([t[:, None], h[:, None], told], axis=1)
            return net(params, z, cond, label, key).astype(z.dtype)

        if guidance != 1:
            now = jnp.zeros_like(t)
            guided = guidance * v + (1 - guidance - guidance_mix) * u(x_t, t, now, None, None)
            if guidance_mix:
                guided = guided + guidance_mix * u(x_t, t, now, label, None)
            v = jax.lax.stop_gradient(guided)
        u_t, dudt = velocity_and_derivative(
            lambda z, t, h: u(z, t, h, label, key_drop), x_t, v, t, r
        )
        weighted = loss_of_example(u_t, dudt, v, t, r, norm_eps, norm_p)
        distance = squared_error(u_t, dudt, v, t, r) / x0[0].size
        return weighted, {'t': t, 'distance': distance}

    return Objective(
        denoise=denoise,
        init=no_refs,
        loss=loss,
        update=keep_refs,
        augment_dim=len(augmentation.UPRIGHT) if augment else 0,
        jump=jump,
    )
