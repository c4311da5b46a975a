"""Exponential moving averages of the weights, and the same averages as coefficients.

With ema_i = rate ema_{i-1} + (1 - rate) theta_i, the average over theta_1 .. theta_K that starts
at theta_1 is sum_i a_i theta_i with a_1 = rate^{K-1} and a_i = (1 - rate) rate^{K-i}: a special case of
a linear combination of checkpoints (LCSC, arXiv 2404.02241).
"""

import numpy as np

from cm_jax.core import tree
from cm_jax.types import Params


def update(ema: Params, params: Params, rate: float) -> Params:
    """ema <- rate ema + (1 - rate) params, as a lerp in float32."""
    return tree.lerp(ema, params, 1 - rate)


def coefficients(k: int, rate: float) -> np.ndarray:
    """The average at `rate` over K checkpoints, oldest first: [K] float64, sum 1.

    rate 0 is the last checkpoint, rate 1 the first; 0 <= rate <= 1.
    """
    weights = (1 - rate) * float(rate) ** np.arange(k - 1, -1, -1)
    weights[0] = float(rate) ** (k - 1)
    return weights
