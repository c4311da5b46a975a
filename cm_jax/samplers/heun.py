"""Heun's steps down the probability-flow ODE (EDM, arXiv 2206.00364, algorithm 1, no churn).

It is written `heun@n`: n steps between the levels of `core.noise.sampling_levels`, which are EDM's grid
with variance exploding, and equal steps with rectified flow. The last step, to level 0, is an Euler
step. It has order 2 and takes 2n - 1 evaluations: heun@18 takes the 35 evaluations of EDM on CIFAR-10,
and heun@8 the 15 of CUD.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from cm_jax.core import ode
from cm_jax.core.noise import sampling_levels
from cm_jax.core.process import Process
from cm_jax.samplers import parse_steps
from cm_jax.types import Array


def parse(arguments: str, process: Process) -> np.ndarray:
    return sampling_levels(process, parse_steps(arguments, 'heun'))


def evaluations(ts: np.ndarray) -> int:
    return 2 * (len(ts) - 1) - 1


def sample(
    denoise: Callable[[Array, Array], Array],
    process: Process,
    x_T: Array,
    ts: np.ndarray | Array,
    keys: Array,
    unroll: bool = False,
) -> Array:
    del process, keys  # the sampler is deterministic, and the ODE is the same for both processes
    x = ode.integrate(ode.heun, ode.pf_ode(denoise), x_T, ts[:-1], unroll)
    return denoise(x, jnp.full(x.shape[0], ts[-2], x.dtype))
