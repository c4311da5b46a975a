"""Sampling with a flow map, x_r = J(x_t, t, r): from each level to the next, and from the last to 0.

    x_{t_1} = x_T;   x_{t_{i+1}} = J(x_{t_i}, t_i, t_{i+1}) for i = 1 .. n, with t_{n+1} = 0

(MeanFlow, arXiv 2505.13447, algorithm 2.) It takes one evaluation for each level, adds no noise, and
needs an objective that learns a flow map. The levels are written in one of two ways:

    jump@2        n jumps between the levels of `core.noise.sampling_levels`; on rectified flow they
                  are of equal length, here 1, 0.5 and 0. jump@1 is `onestep`
    jump@1,0.4    the levels themselves, descending, of which the first is t_max
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from cm_jax.core.noise import sampling_levels
from cm_jax.core.ode import loop
from cm_jax.core.process import Process
from cm_jax.samplers import parse_levels, parse_steps
from cm_jax.types import Array

JUMPS = True  # `sample` is called with a flow map, jump(x, t, r), in place of a denoiser


def parse(arguments: str, process: Process) -> np.ndarray:
    if ',' in arguments:
        return parse_levels(arguments, process, 'jump@')
    return sampling_levels(process, parse_steps(arguments, 'jump'))[:-1]


def evaluations(ts: np.ndarray) -> int:
    return len(ts)


def sample(
    jump: Callable[[Array, Array, Array], Array],
    process: Process,
    x_T: Array,
    ts: np.ndarray | Array,
    keys: Array,
    unroll: bool = False,
) -> Array:
    del process, keys  # the sampler is deterministic, and a flow map knows its process

    def to_next(x: Array, levels: tuple[Array, Array]) -> tuple[Array, None]:
        t, r = (jnp.full(x.shape[0], level, x.dtype) for level in levels)
        return jump(x, t, r), None

    ts = jnp.asarray(ts)
    return loop(to_next, x_T, (ts, jnp.append(ts[1:], 0)), unroll)
