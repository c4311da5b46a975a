"""Sampling with one evaluation, x0 = D(x_T, t_max). It is written `onestep`."""

import numpy as np

from cm_jax.core.process import Process
from cm_jax.errors import UserError
from cm_jax.samplers import multistep


def parse(arguments: str, process: Process) -> np.ndarray:
    if arguments:
        raise UserError(f'sampler onestep takes no arguments, got {arguments!r}')
    return np.array([process.t_max])


def evaluations(ts: np.ndarray) -> int:
    return len(ts)


sample = multistep.sample  # multistep with one level
