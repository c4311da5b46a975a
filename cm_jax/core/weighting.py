"""Weights of the loss by noise level: `weight(t, r, sigma_data)`, all [B], t > r >= 0."""

from collections.abc import Callable

import jax.numpy as jnp

from cm_jax.errors import check_name
from cm_jax.types import Array

Weighting = Callable[[Array, Array, float], Array]


def uniform(t: Array, r: Array, sigma_data: float) -> Array:
    """1."""
    del r, sigma_data
    return jnp.ones_like(t)


def edm(t: Array, r: Array, sigma_data: float) -> Array:
    """1/t^2 + 1/sd^2 = (t^2 + sd^2) / (t sd)^2 (EDM, table 1; ECT on ImageNet-64)."""
    del r
    return 1 / t**2 + 1 / sigma_data**2


def inverse_gap(t: Array, r: Array, sigma_data: float) -> Array:
    """1 / (t - r) (iCT, section 3.5; ECT on CIFAR-10)."""
    del sigma_data
    return 1 / (t - r)


WEIGHTINGS = {'uniform': uniform, 'edm': edm, 'inverse_gap': inverse_gap}


def get(name: str) -> Weighting:
    """The weighting `name`, one of WEIGHTINGS."""
    check_name('weighting', name, WEIGHTINGS)
    return WEIGHTINGS[name]
