"""The three-step Adams-Bashforth solver down the probability-flow ODE: order 3 at Euler's cost.

    x_{i+1} = x_i + h (23/12 v_i - 16/12 v_{i-1} + 5/12 v_{i-2}),  v = (x - D) / t

for equal steps h = t_{i+1} - t_i; for unequal steps see `core.ode.adams_weights`. The first step is
Euler's, and the second step corrects its error. It is written `adams3@n`: n steps between the levels of
`core.noise.sampling_levels`. It takes n evaluations, none of them at level 0. Catch-Up Distillation's
code (arXiv 2305.10769) has a solver `dpm_solver_3` that is meant to be this one, but differs from it;
`cud3` does what that code does.
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
