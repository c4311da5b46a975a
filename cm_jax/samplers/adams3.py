"""The three-step Adams-Bashforth solver down the probability-flow ODE: order 3 at Euler's cost.

    x_{i+1} = x_i + h (23/12 v_i - 16/12 v_{i-1} + 5/12 v_{i-2}),  v = (x - D) / t

for equal steps h = t_{i+1} - t_i; for others `core.ode.adams_weights`. The first step is Euler's,
and the second makes its error good. Written `adams3@n`: n steps between the levels of
`core.noise.sampling_levels`, n evaluations, none at 0. It is what `dpm_solver_3` of Catch-Up
Distillation's code (arXiv 2305.10769) stands for; what that code does is `cud3`.
"""

import functools

import numpy as np

from cm_jax.core.noise import sampling_levels
from cm_jax.core.process import Process
from cm_jax.samplers import adams2, euler, parse_steps


def parse(arguments: str, process: Process) -> np.ndarray:
    return sampling_levels(process, parse_steps(arguments, 'adams3'))


evaluations = euler.evaluations
sample = functools.partial(adams2.adams, order=3)
