"""Weights of the loss by noise level: `weight(t, r, sigma_data)`, [B] for t and r [B], t > r >= 0.

They multiply the squared difference of two denoisers. The signal-to-noise ratio is 1/t^2 with variance
exploding. With rectified flow, where it is (1 - t)^2/t^2, the weight 1/t^2 still has a meaning: as
D = x - t v, it makes the squared difference of two velocities.
"""

from collections.abc import Callable

import jax.numpy as jnp

from cm_jax.errors import check_name
from cm_jax.types import Array

Weighting = Callable[[Array, Array, float], Array]


def uniform(t: Array, r: Array, sigma_data: float) -> Array:
    """Returns 1."""
    del r, sigma_data
    return jnp.ones_like(t)


def snr(t: Array, r: Array, sigma_data: float) -> Array:
    """Returns 1/t^2, the signal-to-noise ratio of variance exploding."""
    del r, sigma_data
    return 1 / t**2


def snr_plus_1(t: Array, r: Array, sigma_data: float) -> Array:
    """Returns 1/t^2 + 1."""
    del r, sigma_data
    return 1 / t**2 + 1


def truncated_snr(t: Array, r: Array, sigma_data: float) -> Array:
    """Returns max(1/t^2, 1) (Progressive Distillation, arXiv 2202.00512, section 4)."""
    del r, sigma_data
    return jnp.maximum(1 / t**2, 1)


def karras(t: Array, r: Array, sigma_data: float) -> Array:
    """Returns 1/t^2 + 1/sd^2 = (t^2 + sd^2) / (t sd)^2, with sd = sigma_data.

    It is the weight of EDM (table 1) and of ECT on ImageNet-64.
    """
    del r
    return 1 / t**2 + 1 / sigma_data**2


def inverse_gap(t: Array, r: Array, sigma_data: float) -> Array:
    """Returns 1 / (t - r), the weight of iCT (section 3.5) and of ECT on CIFAR-10.

    A gap below eps t, with eps the precision of t's type, counts as eps t, so that rounding to t = r
    does not divide by 0.
    """
    del sigma_data
    return 1 / jnp.maximum(t - r, jnp.finfo(t.dtype).eps * t)


WEIGHTINGS = {
    weighting.__name__: weighting
    for weighting in (uniform, snr, snr_plus_1, truncated_snr, karras, inverse_gap)
}


def get(name: str) -> Weighting:
    """Returns the weighting `name`, one of WEIGHTINGS. Raises UserError on another name."""
    check_name('weighting', name, WEIGHTINGS)
    return WEIGHTINGS[name]
