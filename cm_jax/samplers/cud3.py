"""The three-step solver of Catch-Up Distillation's code (arXiv 2305.10769), as that code has it.

That code's `dpm_solver_3` is meant to be the three-step Adams-Bashforth solver, but differs from it in
three points, and so has order 2 instead of 3:

    weights of v_i, v_{i-1}, v_{i-2} from the third step on   11/6, -7/6, 1/3   not 23/12, -16/12, 5/12
    weights of v_i, v_{i-1} in the second step                1/2, 1/2          not 3/2, -1/2
    place of the second velocity                              (x_1, t_0)        not (x_1, t_1)

It is written `cud3@n`, with n >= 3 equal steps, and takes n evaluations. It is here for comparison with
the results of that code; for everything else use `adams3`.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from cm_jax.core import ode
from cm_jax.core.noise import sampling_levels
from cm_jax.core.process import Process
from cm_jax.errors import UserError
from cm_jax.samplers import euler, parse_steps
from cm_jax.types import Array

# Weights of v_i, v_{i-1}, v_{i-2} in the first step, in the second, and in all later ones.
FIRST = (1, 0, 0)
SECOND = (1 / 2, 1 / 2, 0)
LATER = (11 / 6, -7 / 6, 1 / 3)


def parse(arguments: str, process: Process) -> np.ndarray:
    n = parse_steps(arguments, 'cud3')
    if process.name != 'rf':
        raise UserError(
            f'sampler cud3 takes equal steps, of process rf; this one is {process.name!r}: use adams3'
        )
    if n < 3:
        raise UserError(f'sampler cud3@{n}: it takes at least 3 steps, as cud3@8')
    return sampling_levels(process, n)


def sample(
    denoise: Callable[[Array, Array], Array],
    process: Process,
    x_T: Array,
    ts: np.ndarray | Array,
    keys: Array,
    unroll: bool = False,
) -> Array:
    del process, keys  # the sampler is deterministic
    levels = jnp.asarray(ts, x_T.dtype)
    rows = np.array([FIRST, SECOND] + (len(levels) - 3) * [LATER])
    times = levels[:-1].at[1].set(levels[0])
    weights = jnp.diff(levels)[:, None] * rows
    return ode.multistep(ode.pf_ode(denoise), x_T, times, weights, unroll)


evaluations = euler.evaluations
