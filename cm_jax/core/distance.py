"""Distances between images, one number per example: [B,...] and [B,...] -> [B]."""

import functools
from collections.abc import Callable

import jax.numpy as jnp

from cm_jax.errors import UserError, check_name
from cm_jax.types import Array

DistanceFn = Callable[[Array, Array], Array]


def _mean(x: Array) -> Array:
    return jnp.mean(x.reshape(x.shape[0], -1), axis=1)


def l1(a: Array, b: Array) -> Array:
    """Mean absolute difference."""
    return _mean(jnp.abs(a - b))


def l2(a: Array, b: Array) -> Array:
    """Mean squared difference."""
    return _mean((a - b) ** 2)


def pseudo_huber(a: Array, b: Array, c: float) -> Array:
    """sqrt(|a - b|^2 + c^2) - c, with |.| over all values of an example (iCT, eq. 8); c >= 0.

    c = 0 is the Euclidean distance (ECT on CIFAR-10); its gradient at a = b is taken as 0. Written
    as |a - b|^2 / (sqrt(|a - b|^2 + c^2) + c), which keeps float32 accuracy where |a - b| << c.
    """
    square = jnp.sum(((a - b) ** 2).reshape(a.shape[0], -1), axis=1)
    total = square + c**2
    root = jnp.sqrt(jnp.where(total > 0, total, 1))
    return square / (root + c)


def get(name: str, c: float = 0.0) -> DistanceFn:
    """The distance `name`: l1, l2 or pseudo_huber; `c` >= 0 is the last one's."""
    check_name('distance', name, ('l1', 'l2', 'pseudo_huber'))
    if c < 0:
        raise UserError(f'pseudo_huber needs c >= 0, got {c}')
    return {'l1': l1, 'l2': l2, 'pseudo_huber': functools.partial(pseudo_huber, c=c)}[name]
