"""The two-step Adams-Bashforth solver down the probability-flow ODE: order 2 at Euler's cost.

    x_{i+1} = x_i + h (3/2 v_i - 1/2 v_{i-1}),  v = (x - D) / t  for equal steps h = t_{i+1} - t_i;

for unequal steps see `core.ode.adams_weights`. The first step is Euler's. It is written `adams2@n`: n
steps between the levels of `core.noise.sampling_levels`. It takes n evaluations; none is at level 0,
where the last step ends. On rectified flow it equals `dpm_solver_2` of Catch-Up Distillation's code
(arXiv 2305.10769).
"""

import functools
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from cm_jax.core import ode
from cm_jax.core.noise import sampling_levels
from cm_jax.core.process import Process
from cm_jax.samplers import euler, parse_steps
from cm_jax.types import Array


def parse(arguments: str, process: Process) -> np.ndarray:
    return sampling_levels(process, parse_steps(arguments, 'adams2'))


def adams(
    denoise: Callable[[Array, Array], Array],
    process: Process,
    x_T: Array,
    ts: np.ndarray | Array,
    keys: Array,
    unroll: bool = False,
    *,
    order: int,
) -> Array:
    """Returns x at ts[-1] by the Adams-Bashforth solver of order 2 or 3, from x_T at ts[0]."""
    del process, keys  # the sampler is deterministic, and the ODE is the same for both processes
    levels = jnp.asarray(ts, x_T.dtype)
    weights = ode.adams_weights(levels, order)
    return ode.multistep(ode.pf_ode(denoise), x_T, levels[:-1], weights, unroll)


evaluations = euler.evaluations
sample = functools.partial(adams, order=2)
