"""Multistep consistency sampling (arXiv 2303.01469, algorithm 1), in the form of ECT and iCT:

    x0 = D(x_T, t_1);   then for i = 2 .. n:   x0 = D(a(t_i) x0 + t_i z, t_i),   z ~ N(0, I)

It takes one evaluation for each level. The levels are written in one of two ways:

    multistep@80,0.821         the levels themselves, descending, of which the first is t_max: ECT's
                               two steps on CIFAR-10
    multistep@idx:0,22,39/40   by their indices in the grid of 40 levels of `core.noise.levels`, index 0
                               being t_max and 39 t_min: the levels 80 and 1.382 of Consistency Models
                               on ImageNet-64, whose commands have `--ts 0,22,39 --steps 40`. As there,
                               the last index, that of t_min, ends the sampling and is not evaluated

The code of Consistency Models clips every x0 (karras_sample has `clip_denoised`, on by default), which
is written `multistep@idx:0,22,39/40,clip`. It adds noise of standard deviation sqrt(t_i^2 - t_min^2)
instead of t_i; the relative difference is below 1e-5 at t_i >= 0.5.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from cm_jax.core import noise
from cm_jax.core.ode import loop
from cm_jax.core.process import Process, perturb
from cm_jax.errors import UserError, shown
from cm_jax.samplers import MAX_STEPS, parse_levels, whole_number
from cm_jax.types import Array

BY_INDEX = 'idx:'


def parse(arguments: str, process: Process) -> np.ndarray:
    if arguments.startswith(BY_INDEX):
        return levels_by_index(arguments.removeprefix(BY_INDEX), process)
    return parse_levels(arguments, process, 'multistep@')


def levels_by_index(text: str, process: Process) -> np.ndarray:
    """Returns the levels that `text`, as '0,22,39/40', names by their indices in a grid, but the last.

    Raises UserError unless the indices ascend from 0 to that of t_min, the last of the grid, which has
    at most MAX_STEPS levels.
    """
    listed, _, count = text.partition('/')
    indices, n = [whole_number(index) for index in listed.split(',')], whole_number(count)
    if n and 1 < n <= MAX_STEPS and None not in indices and len(indices) > 1:
        chosen = np.array(indices)
        if chosen[0] == 0 and chosen[-1] == n - 1 and np.all(np.diff(chosen) > 0):
            return np.asarray(noise.levels(process, n), np.float64)[chosen[:-1]]
    raise UserError(
        f'sampler multistep@{BY_INDEX}{shown(text)}: write indices that ascend from 0, that of t_max, '
        f'to n - 1, that of t_min, and behind / the n levels of a grid, at most {MAX_STEPS:,}, as '
        f'multistep@{BY_INDEX}0,22,39/40'
    )


def evaluations(ts: np.ndarray) -> int:
    return len(ts)


def sample(
    denoise: Callable[[Array, Array], Array],
    process: Process,
    x_T: Array,
    ts: np.ndarray | Array,
    keys: Array,
    unroll: bool = False,
) -> Array:
    batch, shape = x_T.shape[0], x_T.shape[1:]

    def renoise_and_denoise(x0: Array, level: tuple[Array, Array]) -> tuple[Array, None]:
        i, t = level
        t = jnp.full(batch, t, x0.dtype)
        z = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, i), shape))(keys)
        return denoise(perturb(process, x0, z, t), t), None

    x0 = denoise(x_T, jnp.full(batch, ts[0], x_T.dtype))
    if len(ts) == 1:
        return x0
    later = (jnp.arange(len(ts) - 1), jnp.asarray(ts[1:]))
    return loop(renoise_and_denoise, x0, later, unroll)
