"""The probability-flow ODE dx/dt = (x - D(x, t)) / t; one-step and multistep solvers over one scan."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from cm_jax.core.process import expand
from cm_jax.types import Array

Velocity = Callable[[Array, Array], Array]  # v(x [B,...], t [B]) -> [B,...]
Step = Callable[[Velocity, Array, Array, Array], Array]  # (v, x, t, s) -> x at s


def pf_ode(denoise: Callable[[Array, Array], Array]) -> Velocity:
    """v(x, t) = (x - denoise(x, t)) / t, for both processes (see core/process.py); t > 0."""
    return lambda x, t: (x - denoise(x, t)) / expand(t, x)


def euler(velocity: Velocity, x: Array, t: Array, s: Array) -> Array:
    """One Euler step from time t to s: x + (s - t) v(x, t). One evaluation, order 1."""
    return x + expand(s - t, x) * velocity(x, t)


def heun(velocity: Velocity, x: Array, t: Array, s: Array) -> Array:
    """One Heun step from t to s (EDM, algorithm 1): x + (s - t)/2 (v(x, t) + v(x_euler, s)).

    Two evaluations, order 2.
    """
    slope = velocity(x, t)
    ahead = velocity(x + expand(s - t, x) * slope, s)
    return x + expand(s - t, x) * (slope + ahead) / 2


def integrate(step: Step, velocity: Velocity, x: Array, ts: Array) -> Array:
    """Runs `step` through the times ts [n], in one scan; x [B,...] at ts[0], returns x at ts[-1]."""
    batch = x.shape[:1]

    def body(x: Array, pair: tuple[Array, Array]) -> tuple[Array, None]:
        t, s = (jnp.broadcast_to(time, batch).astype(x.dtype) for time in pair)
        return step(velocity, x, t, s), None

    return jax.lax.scan(body, x, (ts[:-1], ts[1:]))[0]


def adams_weights(ts: Array, order: int) -> Array:
    """Weights of the Adams-Bashforth solver of order 2 or 3 on the times ts [n + 1].

    x_{i+1} = x_i + sum_j w[i, j] v_{i-j}, v_k the velocity at (x_k, t_k): the integral from t_i to
    t_{i+1} of the polynomial through the last `order` velocities, or all there are: the first step
    is Euler's. Rows for equal steps h are h (3/2, -1/2) and h (23/12, -16/12, 5/12) (Hairer, Norsett
    & Wanner, Solving ODEs I, section III.1). Euler's error, of order h^2, would spoil order 3, so
    there the second step makes it good by (t_1 - t_0) / 2 (v_1 - v_0): Heun's rule with hindsight.
    Returns [n, order]. Raises ValueError on another order.
    """
    if order not in (2, 3):
        raise ValueError(f'adams_weights has order 2 or 3, got {order}')
    h = jnp.diff(ts)
    w = jnp.zeros((len(h), order), ts.dtype).at[:, 0].set(h)
    slope = h[1:] ** 2 / (2 * h[:-1])  # of (v_i - v_{i-1}): the line's share
    w = w.at[1:, 0].add(slope).at[1:, 1].add(-slope)
    if order == 3:
        hindsight = h[:-1][:1] / 2
        w = w.at[1:2, 0].add(hindsight).at[1:2, 1].add(-hindsight)
        b, a, now = h[:-2], h[1:-1], h[2:]
        bend = (now**3 / 3 + a * now**2 / 2) / (a + b)  # the parabola's share
        w = w.at[2:, 0].add(bend / a).at[2:, 1].add(-bend / a - bend / b).at[2:, 2].add(bend / b)
    return w


def multistep(velocity: Velocity, x: Array, ts: Array, weights: Array) -> Array:
    """x_{i+1} = x_i + sum_j weights[i, j] v_{i-j}, v_i = velocity(x_i, t_i), in one scan.

    x [B,...] is at ts[0]; ts [n] are the times of the n steps, weights [n, k], where those of
    velocities from before the first step are 0. n evaluations, none after the last of ts. Returns
    x_n. The sum is multiply and add, not a matrix product, which an accelerator would round.
    """
    before = jnp.zeros((weights.shape[1], *x.shape), x.dtype)  # velocities, the newest first

    def body(
        carry: tuple[Array, Array], step: tuple[Array, Array]
    ) -> tuple[tuple[Array, Array], None]:
        x, past = carry
        t, w = step
        now = velocity(x, jnp.broadcast_to(t, x.shape[:1]).astype(x.dtype))
        past = jnp.concatenate([now[None], past[:-1]])
        return (x + jnp.sum(expand(w, past) * past, axis=0), past), None

    return jax.lax.scan(body, (x, before), (ts, weights.astype(x.dtype)))[0][0]
