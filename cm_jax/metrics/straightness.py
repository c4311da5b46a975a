"""Straightness of the paths of a rectified flow (Liu et al., arXiv 2209.03003, section 2.2)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from cm_jax.core import ode
from cm_jax.core.noise import sampling_levels
from cm_jax.core.process import Process
from cm_jax.errors import UserError
from cm_jax.types import Array


def check(process: Process, steps: int) -> None:
    """Raises UserError unless the process is a rectified flow and `steps` is at least 1."""
    if process.name != 'rf':
        raise UserError(
            f'straightness is a measure of process rf, whose paths lead from data to pure noise; got '
            f'{process.name!r}'
        )
    if steps < 1:
        raise UserError(f'straightness needs at least 1 step, got {steps}')


def straightness(
    denoise: Callable[[Array, Array], Array], process: Process, x_T: Array, steps: int
) -> Array:
    """Returns the straightness S [B] of the path from each x_T. It is meant to be jitted.

    S = 1/t_max int_0^t_max |(x_T - x_0)/t_max - v(x_t, t)|^2 dt

    x_T [B,...] is noise at t_max (t_max = 1 in the paper). The path consists of `steps` equal Euler
    steps down to x_0, and the integral is the mean over these steps. |.|^2 sums over the values of an
    example. As (x_T - x_0)/t_max is the mean of the velocities, S is the variance of the velocity
    over time. It is 0 if the path is a straight line with constant velocity; then a single Euler step
    leads to the same x_0. Raises UserError as `check` does.
    """
    check(process, steps)
    velocity = ode.pf_ode(denoise)
    levels = sampling_levels(process, steps)
    batch = x_T.shape[0]

    def step(
        carry: tuple[Array, Array, Array], now: tuple[Array, ...]
    ) -> tuple[tuple[Array, Array, Array], None]:
        """Updates mean and sum of squares by Welford's method, which subtracts no large numbers."""
        x, mean, squares = carry
        i, t, h = now
        v = velocity(x, jnp.full(batch, t))
        new_mean = mean + (v - mean) / i
        change = ((v - mean) * (v - new_mean)).reshape(batch, -1)
        return (x + h * v, new_mean, squares + jnp.sum(change, axis=1)), None

    numbers = [1 + jnp.arange(steps), levels[:-1], jnp.diff(levels)]
    over = tuple(jnp.asarray(number, x_T.dtype) for number in numbers)
    start = (x_T, jnp.zeros_like(x_T), jnp.zeros(batch, x_T.dtype))
    return jax.lax.scan(step, start, over)[0][2] / steps
