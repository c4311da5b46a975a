"""Heun's steps down the probability-flow ODE (EDM, arXiv 2206.00364, algorithm 1, no churn).

Written `heun@n`: n steps between the levels of `core.noise.sampling_levels`, EDM's grid or, on
rectified flow, equal steps; the last step, to 0, is an Euler step; order 2; 2n - 1 evaluations
(heun@18 is EDM's 35 on CIFAR-10, heun@8 CUD's 15).
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
    ts: np.ndarray,
    keys: Array,
) -> Array:
    del process, keys  # deterministic, and the same ODE for both processes
    x = ode.integrate(ode.heun, ode.pf_ode(denoise), x_T, ts[:-1])
    return denoise(x, jnp.full(x.shape[0], ts[-2], x.dtype))
