"""Arithmetic on trees of arrays."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from cm_jax.types import Array, Params


def linear_combination(stacked: Params, coefficients: Array) -> Params:
    """sum_k c_k theta_k; leaves [K, ...] and coefficients [K] -> leaves [...].

    Multiply and add in float32, never a matrix product, which a TPU or TF32 would round: the
    coefficients of LCSC are large and of both signs.
    """
    c = jnp.asarray(coefficients, jnp.float32)

    def combine(leaf: Array) -> Array:
        weights = c.reshape(c.shape + (1,) * (leaf.ndim - 1))
        return jnp.sum(weights * leaf.astype(jnp.float32), axis=0).astype(leaf.dtype)

    return jax.tree.map(combine, stacked)


def stack(trees: Sequence[Params]) -> Params:
    """K trees with leaves [...] -> one tree of numpy leaves [K, ...]."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def lerp(a: Params, b: Params, weight: float) -> Params:
    """a + weight (b - a)."""
    return jax.tree.map(lambda x, y: x + weight * (y - x), a, b)


def count(params: Params) -> int:
    """Number of values in the tree."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))
