"""Multistep consistency sampling (arXiv 2303.01469, algorithm 1), in the form of ECT and iCT:

    x0 = D(x_T, t_1);   then for i = 2 .. n:   x0 = D(a(t_i) x0 + t_i z, t_i),   z ~ N(0, I)

It is written `multistep@t_1,t_2,...` with levels in descending order, of which the first is t_max, as
`multistep@80,0.821` (ECT's two steps on CIFAR-10). It takes one evaluation for each level. The code of
Consistency Models adds noise of standard deviation sqrt(t_i^2 - t_min^2) instead of t_i; the relative
difference is below 1e-5 at t_i >= 0.5.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from cm_jax.core.ode import loop
from cm_jax.core.process import Process, perturb
from cm_jax.samplers import parse_levels
from cm_jax.types import Array


def parse(arguments: str, process: Process) -> np.ndarray:
    return parse_levels(arguments, process, 'multistep@')


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
