"""A random walk of weights, and its power averages by their recursion."""

import numpy as np

from cm_jax.core import ema

KEPT = (0.05, 0.1)
STEPS = 240


def walk(seed=0, size=64):
    """theta_1 .. theta_STEPS, [STEPS, size]: a random walk from far off 0."""
    return 5 + np.cumsum(np.random.default_rng(seed).standard_normal((STEPS, size)), axis=0)


def averaged(weights, sigma_rel):
    """The running average at every step, by its recursion."""
    share, average, rows = ema.power_share(sigma_rel), np.zeros(weights.shape[1]), []
    for t, row in enumerate(weights, 1):
        average = average + float(share(t)) * (row - average)
        rows.append(average)
    return np.array(rows)
