"""How straight the paths of a rectified flow are (Liu et al., arXiv 2209.03003, section 2.2)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from cm_jax.core import ode
from cm_jax.core.noise import sampling_levels
from cm_jax.core.process import Process
from cm_jax.errors import UserError
from cm_jax.types import Array


def check(process: Process, steps: int) -> None:
    """Raises UserError unless straightness is defined there and `steps` >= 1."""
    if process.name != 'rf':
        raise UserError(
            f'straightness is of the paths of process rf, from data to noise; got {process.name!r}, '
            'where no t is noise alone'
        )
    if steps < 1:
        raise UserError(f'straightness needs at least 1 step, got {steps}')


def straightness(
    denoise: Callable[[Array, Array], Array], process: Process, x_T: Array, steps: int
) -> Array:
    """S = 1/t_max int_0^t_max |(x_T - x_0)/t_max - v(x_t, t)|^2 dt along each Euler path from x_T.

    x_T [B,...] is noise at t_max, where t_max = 1 is the paper's; `steps` equal Euler steps lead to
    x_0, and the integral is the mean over them. As (x_T - x_0)/t_max is the mean of their velocities,
    S is the variance of the velocity over time; |.|^2 sums over the values of an example. 0 where
    every path is straight and walked evenly: one Euler step then goes where all of them go.
    Returns [B]. To be jitted. Raises UserError where `check` does.
    """
    check(process, steps)
    velocity = ode.pf_ode(denoise)
    levels = sampling_levels(process, steps)
    batch = x_T.shape[0]

    def step(
        carry: tuple[Array, Array, Array], now: tuple[Array, Array, Array]
    ) -> tuple[tuple[Array, Array, Array], None]:
        """Welford's update of mean and sum of squares: no difference of large numbers."""
        x, mean, squares = carry
        i, t, h = now
        v = velocity(x, jnp.full(batch, t))
        ahead = mean + (v - mean) / i
        change = ((v - mean) * (v - ahead)).reshape(batch, -1)
        return (x + h * v, ahead, squares + jnp.sum(change, axis=1)), None

    numbers = [1 + jnp.arange(steps), levels[:-1], jnp.diff(levels)]
    over = tuple(jnp.asarray(number, x_T.dtype) for number in numbers)
    start = (x_T, jnp.zeros_like(x_T), jnp.zeros(batch, x_T.dtype))
    return jax.lax.scan(step, start, over)[0][2] / steps
