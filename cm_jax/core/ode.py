"""The probability-flow ODE dx/dt = (x - D(x, t)) / t and one-step solvers over one scan."""

from collections.abc import Callable

import jax

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
        t, s = (jax.numpy.broadcast_to(time, batch).astype(x.dtype) for time in pair)
        return step(velocity, x, t, s), None

    return jax.lax.scan(body, x, (ts[:-1], ts[1:]))[0]
