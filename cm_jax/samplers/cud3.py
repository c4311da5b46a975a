"""The three-step solver of Catch-Up Distillation's code (arXiv 2305.10769), as that code has it.

Its `dpm_solver_3`, which stands for the three-step Adams-Bashforth solver, has order 2, not 3, by three
departures from it: from the third step on it takes 11/6, -7/6, 1/3 of the velocities v_i, v_{i-1},
v_{i-2} in place of 23/12, -16/12, 5/12; the second step takes 1/2, 1/2 in place of 3/2, -1/2; and the
second velocity is that at (x_1, t_0), not (x_1, t_1). Written `cud3@n`, n >= 3 equal steps, n
evaluations: for comparing with what that code gives. For all else take `adams3`.
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
    ts: np.ndarray,
    keys: Array,
) -> Array:
    del process, keys  # deterministic
    ts = jnp.asarray(ts, x_T.dtype)
    rows = np.array([(1, 0, 0), SECOND] + (len(ts) - 3) * [LATER])
    times = ts[:-1].at[1].set(ts[0])
    return ode.multistep(ode.pf_ode(denoise), x_T, times, jnp.diff(ts)[:, None] * rows)


evaluations = euler.evaluations
