"""Distances between images: each takes two batches [B,...] and returns one number per example, [B]."""

import functools
from collections.abc import Callable

import jax.numpy as jnp

from cm_jax.errors import UserError, check_name
from cm_jax.types import Array

DistanceFn = Callable[[Array, Array], Array]


def _mean_per_example(x: Array) -> Array:
    return jnp.mean(x.reshape(x.shape[0], -1), axis=1)


def l1(a: Array, b: Array) -> Array:
    """Returns the mean absolute difference of each example."""
    return _mean_per_example(jnp.abs(a - b))


def l2(a: Array, b: Array) -> Array:
    """Returns the mean squared difference of each example."""
    return _mean_per_example((a - b) ** 2)


def pseudo_huber(a: Array, b: Array, c: float) -> Array:
    """Returns sqrt(|a - b|^2 + c^2) - c, with |.| over all values of an example; c >= 0.

    It is equation 8 of iCT (arXiv 2310.14189). With c = 0 it is the Euclidean distance, which ECT
    uses on CIFAR-10; the gradient of that at a = b is taken as 0. It is computed as
    |a - b|^2 / (sqrt(|a - b|^2 + c^2) + c), which keeps float32 accuracy where |a - b| << c.
    """
    square = jnp.sum(((a - b) ** 2).reshape(a.shape[0], -1), axis=1)
    total = square + c**2
    root = jnp.sqrt(jnp.where(total > 0, total, 1))
    return square / (root + c)


def get(name: str, c: float = 0.0) -> DistanceFn:
    """Returns the distance `name`: l1, l2 or pseudo_huber. Only pseudo_huber has a `c`.

    Raises UserError on another name, and if c is negative.
    """
    distances: dict[str, DistanceFn] = {
        'l1': l1,
        'l2': l2,
        'pseudo_huber': functools.partial(pseudo_huber, c=c),
    }
    check_name('distance', name, distances)
    if c < 0:
        raise UserError(f'pseudo_huber needs c >= 0, got {c}')
    return distances[name]
