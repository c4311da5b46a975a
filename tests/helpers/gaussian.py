"""Gaussian data, for which the denoiser, the ODE's solution and the consistency function are known.

Data N(m, s^2) in each value, x_t = a x0 + t eps, so x_t ~ N(a m, a^2 s^2 + t^2) and

    D(x, t) = m + a s^2 (x - a m) / (a^2 s^2 + t^2)
    x(u) = a(u) m + sqrt((a(u)^2 s^2 + u^2) / (a(t)^2 s^2 + t^2)) (x(t) - a(t) m)

is the solution of dx/dt = (x - D) / t through x(t), and x(0) is the consistency function.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax.core import process
from cm_jax.core.process import expand

MEAN, STD = 0.3, 0.5
PROCESSES = {'ve': process.build('ve', 0.002, 80.0), 'rf': process.build('rf', 1e-3, 1.0)}
each_process = pytest.mark.parametrize('p', PROCESSES.values(), ids=PROCESSES)


class Gaussian(NamedTuple):
    """Data N(mean, std^2) in each value."""

    mean: float = MEAN
    std: float = STD

    def variance(self, p, t):
        return p.signal(t) ** 2 * self.std**2 + t**2

    def denoise(self, p, x, t):
        pull = expand(p.signal(t) * self.std**2 / self.variance(p, t), x)
        return self.mean + pull * (x - expand(p.signal(t), x) * self.mean)

    def solve(self, p, x, t, u):
        """x(u) on the path through x(t) = x."""
        ratio = jnp.sqrt(self.variance(p, u) / self.variance(p, t))
        away = x - expand(p.signal(t), x) * self.mean
        return expand(p.signal(u), x) * self.mean + expand(ratio, x) * away

    def consistency(self, p, x, t):
        return self.solve(p, x, t, jnp.zeros_like(t))


DATA = Gaussian()


def measured_order(errors, ns):
    """The slope of log error against log 1/n."""
    return -np.polyfit(np.log(ns), np.log(errors), 1)[0]


def points(p, t, count=64):
    """Values of x_t, spread like the marginal, [count, 1] float64."""
    z = np.random.default_rng(0).standard_normal((count, 1))
    a = float(p.signal(jnp.asarray(t)))
    return jnp.asarray(a * MEAN + np.sqrt(a**2 * STD**2 + t**2) * z)
