"""DDIM on nested grids: Euler steps down the probability-flow ODE, whose levels halve.

Written `ddim@n`: the levels s(i/n), i = 0 .. n - 1, then 0; n evaluations, order 1, where

    s(u) = (t_max^{1/rho} + u (t_min^{1/rho} - t_max^{1/rho}))^rho

is EDM's curve (arXiv 2206.00364, equation 5) over u in [0, 1], whatever n, with rho = 7, or a straight
line, rho = 1, on rectified flow. So the levels of ddim@n are every second one of ddim@2n, and one step
of the first goes where two steps of the second go: what progressive distillation (Salimans & Ho, arXiv
2202.00512) halves again and again. `euler@n` takes the same steps (Song et al., arXiv 2010.02502, in
x_t = a x0 + t eps); with variance exploding on EDM's own grid: n levels of which the last is t_min,
s(i/(n-1)), and no grid of n - 1 intervals holds the one of half as many levels.
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
