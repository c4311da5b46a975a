"""DDIM on nested grids: Euler steps down the probability-flow ODE, for halving their number.

It is written `ddim@n`, takes n evaluations and has order 1. Its levels are s(i/n) for i = 0 .. n - 1,
and then 0, where

    s(u) = (t_max^{1/rho} + u (t_min^{1/rho} - t_max^{1/rho}))^rho

is the same curve over u in [0, 1] for every n. With variance exploding it is EDM's (arXiv 2206.00364,
equation 5) with rho = 7; with rectified flow it is a straight line, rho = 1. So the levels of ddim@n
are every second level of ddim@2n, and one step of ddim@n spans two steps of ddim@2n. This is what
progressive distillation (Salimans & Ho, arXiv 2202.00512) needs to halve the steps again and again.

`euler@n` takes steps by the same rule (Song et al., arXiv 2010.02502, in x_t = a x0 + t eps). But with
variance exploding its levels are EDM's own grid, s(i/(n-1)), whose last level is t_min. Such a grid
does not contain the grid with half as many levels.
"""

import numpy as np

from cm_jax.core.noise import levels
from cm_jax.core.process import Process
from cm_jax.samplers import euler, parse_steps


def parse(arguments: str, process: Process) -> np.ndarray:
    n = parse_steps(arguments, 'ddim')
    grid = np.array(levels(process, n + 1))  # s(i/n), i = 0 .. n
    grid[-1] = 0.0
    return grid


evaluations = euler.evaluations
sample = euler.sample
