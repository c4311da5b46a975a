"""Weights of the loss by noise level: `weight(t, r, sigma_data)`, all [B], t > r >= 0.

They weigh differences of denoisers. On rectified flow D = x - t v, so that 1/t^2, there the signal's
ratio to the noise for t -> 0 alone, gives the squared difference of velocities.
"""

from collections.abc import Callable

import jax.numpy as jnp

from cm_jax.errors import check_name
from cm_jax.types import Array

Weighting = Callable[[Array, Array, float], Array]


def uniform(t: Array, r: Array, sigma_data: float) -> Array:
    """1."""
    del r, sigma_data
    return jnp.ones_like(t)


def snr(t: Array, r: Array, sigma_data: float) -> Array:
    """1/t^2, the signal-to-noise ratio."""
    del r, sigma_data
    return 1 / t**2


def snr_plus_1(t: Array, r: Array, sigma_data: float) -> Array:
    """1/t^2 + 1."""
    del r, sigma_data
    return 1 / t**2 + 1


def truncated_snr(t: Array, r: Array, sigma_data: float) -> Array:
    """max(1/t^2, 1) (Progressive Distillation, arXiv 2202.00512, section 4)."""
    del r, sigma_data
    return jnp.maximum(1 / t**2, 1)


def karras(t: Array, r: Array, sigma_data: float) -> Array:
    """1/t^2 + 1/sd^2 = (t^2 + sd^2) / (t sd)^2 (EDM, table 1; ECT on ImageNet-64)."""
    del r
    return 1 / t**2 + 1 / sigma_data**2


def inverse_gap(t: Array, r: Array, sigma_data: float) -> Array:
    """1 / (t - r) (iCT, section 3.5; ECT on CIFAR-10).

    A gap that the arithmetic cannot tell from 0 counts as the smallest one that it can, eps t.
    """
    del sigma_data
    return 1 / jnp.maximum(t - r, jnp.finfo(t.dtype).eps * t)


WEIGHTINGS = {
    weighting.__name__: weighting
    for weighting in (uniform, snr, snr_plus_1, truncated_snr, karras, inverse_gap)
}


def get(name: str) -> Weighting:
    """The weighting `name`, one of WEIGHTINGS."""
    check_name('weighting', name, WEIGHTINGS)
    return WEIGHTINGS[name]
