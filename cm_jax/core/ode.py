"""The probability-flow ODE dx/dt = (x - D(x, t)) / t, with one-step and multistep solvers.

Every solver runs all its steps in one jax.lax.scan; with `unroll` the compiled program has no loop, but
the steps one after another, which is what a derivative through them needs to be fast.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cm_jax.core.process import expand
from cm_jax.types import Array

Velocity = Callable[[Array, Array], Array]  # v(x [B,...], t [B]) -> [B,...]
Step = Callable[[Velocity, Array, Array, Array], Array]  # (v, x, t, s) -> x at s


def loop(
    body: Callable[[Any, Any], tuple[Any, None]], carry: Any, xs: Any, unroll: bool = False
) -> Any:
    """Returns the last carry of a jax.lax.scan of `body` over the leading axis of the leaves of xs.

    With `unroll` the traced program has no loop: `body` is traced once for each step. (The option of
    scan itself traces it once; a derivative through two evaluations of configs/digits_ect.py's network
    took five times as long so, in XLA's code for CPUs, on 2 cores of an AMD EPYC.)
    """
    if not unroll:
        return jax.lax.scan(body, carry, xs)[0]
    for i in range(len(jax.tree.leaves(xs)[0])):
        carry, _ = body(carry, jax.tree.map(lambda x, i=i: x[i], xs))
    return carry


def pf_ode(denoise: Callable[[Array, Array], Array]) -> Velocity:
    """Returns the velocity v(x, t) = (x - denoise(x, t)) / t, for t > 0.

    It is the same for both processes, see core/process.py.
    """
    return lambda x, t: (x - denoise(x, t)) / expand(t, x)


def euler(velocity: Velocity, x: Array, t: Array, s: Array) -> Array:
    """Returns x after one Euler step from time t to s: x + (s - t) v(x, t).

    It takes one evaluation and has order 1.
    """
    return x + expand(s - t, x) * velocity(x, t)


def heun(velocity: Velocity, x: Array, t: Array, s: Array) -> Array:
    """Returns x after one Heun step from time t to s: x + (s - t)/2 (v(x, t) + v(x_euler, s)).

    x_euler is x after one Euler step (EDM, arXiv 2206.00364, algorithm 1). It takes two evaluations
    and has order 2.
    """
    slope = velocity(x, t)
    ahead = velocity(x + expand(s - t, x) * slope, s)
    return x + expand(s - t, x) * (slope + ahead) / 2


def integrate(
    step: Step, velocity: Velocity, x: Array, ts: np.ndarray | Array, unroll: bool = False
) -> Array:
    """Returns x at ts[-1], by a `step` between each two successive times of ts [n].

    x [B,...] is given at ts[0].
    """
    ts = jnp.asarray(ts)
    batch = x.shape[:1]

    def body(x: Array, pair: tuple[Array, Array]) -> tuple[Array, None]:
        t, s = (jnp.broadcast_to(time, batch).astype(x.dtype) for time in pair)
        return step(velocity, x, t, s), None

    return loop(body, x, (ts[:-1], ts[1:]), unroll)


def adams_weights(ts: Array, order: int) -> Array:
    """Returns the weights w [n, order] of the Adams-Bashforth solver on the times ts [n + 1].

    x_{i+1} = x_i + sum_j w[i, j] v_{i-j},  v_k the velocity at (x_k, t_k)

    The sum is the integral, from t_i to t_{i+1}, of the polynomial through the last `order`
    velocities (Hairer, Norsett & Wanner, Solving ODEs I, section III.1). The first steps use as many
    velocities as there are by then, so the first step is Euler's. On equal steps h the rows are
    h (3/2, -1/2) for order 2, and h (23/12, -16/12, 5/12) for order 3.

    Euler's error in the first step, of order h^2, would reduce order 3 to 2. So with order 3 the
    second step adds (t_1 - t_0) / 2 (v_1 - v_0), which turns the first step into Heun's afterwards.
    Raises ValueError unless the order is 2 or 3.
    """
    if order not in (2, 3):
        raise ValueError(f'adams_weights needs order 2 or 3, got {order}')
    h = jnp.diff(ts)
    w = jnp.zeros((len(h), order), ts.dtype).at[:, 0].set(h)
    slope = h[1:] ** 2 / (2 * h[:-1])  # the weight of v_i - v_{i-1}, from the line through them
    w = w.at[1:, 0].add(slope).at[1:, 1].add(-slope)
    if order == 3:
        correction = h[:-1][:1] / 2  # of Euler's step, see above
        w = w.at[1:2, 0].add(correction).at[1:2, 1].add(-correction)
        b, a, now = h[:-2], h[1:-1], h[2:]  # each step from the third on, after the two before it
        bend = (now**3 / 3 + a * now**2 / 2) / (a + b)  # what the parabola adds to the line
        w = w.at[2:, 0].add(bend / a).at[2:, 1].add(-bend / a - bend / b).at[2:, 2].add(bend / b)
    return w


def multistep(
    velocity: Velocity, x: Array, ts: Array, weights: Array, unroll: bool = False
) -> Array:
    """Returns x_n after n steps of a linear multistep solver, which take n evaluations.

    x_{i+1} = x_i + sum_j weights[i, j] v_{i-j},  v_i = velocity(x_i, t_i)

    x [B,...] is x_0, ts [n] are the times t_0 .. t_{n-1} that the steps start from, and the weights
    are [n, k], with 0 for velocities from before the first step. The sum is made of products and
    additions, as an accelerator would round the inputs of a matrix product.
    """
    before = jnp.zeros((weights.shape[1], *x.shape), x.dtype)  # velocities, the newest first

    def body(
        carry: tuple[Array, Array], step: tuple[Array, Array]
    ) -> tuple[tuple[Array, Array], None]:
        x, past = carry
        t, row = step
        now = velocity(x, jnp.broadcast_to(t, x.shape[:1]).astype(x.dtype))
        past = jnp.concatenate([now[None], past[:-1]])
        return (x + jnp.sum(expand(row, past) * past, axis=0), past), None

    steps = (ts, weights.astype(x.dtype))
    return loop(body, (x, before), steps, unroll)[0]
