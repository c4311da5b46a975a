"""Euler steps down the probability-flow ODE: DDIM's path (arXiv 2010.02502) in x_t = a x0 + t eps.

It is written `euler@n`: n steps between the levels of `core.noise.sampling_levels`, which are EDM's
grid with variance exploding, and equal steps with rectified flow. It takes n evaluations and has order
1. An Euler step from t to 0 gives D(x, t), so the last step does not divide by 0, and euler@1 is one
denoising step.
"""

from collections.abc import Callable

import numpy as np

from cm_jax.core import ode
from cm_jax.core.noise import sampling_levels
from cm_jax.core.process import Process
from cm_jax.samplers import parse_steps
from cm_jax.types import Array


def parse(arguments: str, process: Process) -> np.ndarray:
    return sampling_levels(process, parse_steps(arguments, 'euler'))


def evaluations(ts: np.ndarray) -> int:
    return len(ts) - 1


def sample(
    denoise: Callable[[Array, Array], Array],
    process: Process,
    x_T: Array,
    ts: np.ndarray | Array,
    keys: Array,
    unroll: bool = False,
) -> Array:
    del process, keys  # the sampler is deterministic, and the ODE is the same for both processes
    return ode.integrate(ode.euler, ode.pf_ode(denoise), x_T, ts, unroll)
