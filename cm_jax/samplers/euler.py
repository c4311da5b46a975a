"""Euler steps down the probability-flow ODE: DDIM's path (arXiv 2010.02502) in x_t = a x0 + t eps.

Written `euler@n`: n levels, then 0; n evaluations, order 1. The levels are EDM's grid (rho = 7), and
t_max (1 - i/n) on rectified flow. From t to 0 an Euler step is D(x, t), so the last one needs no
division by 0, and euler@1 is one denoising step.
"""

from collections.abc import Callable

import numpy as np

from cm_jax.core import ode
from cm_jax.core.noise import sampling_levels
from cm_jax.core.process import Process
from cm_jax.samplers import parse_steps
from cm_jax.types import Array


def parse(arguments: str, process: Process) -> np.ndarray:
    n = parse_steps(arguments, 'euler')
    return sampling_levels(process, n)


def evaluations(ts: np.ndarray) -> int:
    return len(ts) - 1


def sample(
    denoise: Callable[[Array, Array], Array],
    process: Process,
    x_T: Array,
    ts: np.ndarray,
    keys: Array,
) -> Array:
    del process, keys  # deterministic, and the same ODE for both processes
    return ode.integrate(ode.euler, ode.pf_ode(denoise), x_T, ts)
