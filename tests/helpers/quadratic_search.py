"""A search of a quadratic function, which may be killed in any of its calls."""

import jax
import numpy as np

from cm_jax.lcsc import ask_tell
from cm_jax.settings import Budget

K = 6
BUDGET = Budget(generations=5, seed=3)
OPTIMUM = np.array([0.5, -0.4, 0.2, 0.1, -0.1, 0.7])


class Killed(BaseException):
    """What stands for a kill."""


def fitness(coefficients, seed):
    """A quadratic whose optimum moves with the noise; one side has no score."""
    values = np.sum((coefficients - OPTIMUM - 0.01 * seed) ** 2, axis=1)
    return np.where(coefficients[:, 4] > 0.24, np.nan, values)


def start(method='evolution', **settings):
    return ask_tell.init(jax.random.key(0), K, method=method, population=5, **settings)
