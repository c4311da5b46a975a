"""Arithmetic on trees of arrays."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cm_jax.core import compensated
from cm_jax.types import Array, Params

FIXED = 'fixed_'  # how the name of a leaf begins that is a constant and not a parameter


def linear_combination(stacked: Params, coefficients: Array) -> Params:
    """sum_k c_k theta_k; leaves [K, ...], coefficients [K] -> float32 leaves [...].

    In twice float32's precision (see core.compensated), as the coefficients of LCSC are large and of
    both signs: within 1e-6 of float64, entry by entry, relative to max(1, |entry|), at coefficients
    of +-6. Never a matrix product, which a TPU or TF32 would round. Coefficients are rounded to
    float32; one that is 0 leaves its checkpoint out, even one that is not finite; one-hot ones return
    that checkpoint bit for bit (denormal numbers apart, which CPUs running XLA take for 0).
    """
    c = jnp.asarray(coefficients, jnp.float32)

    def combine(leaf: Array) -> Array:
        total = compensated.zero(leaf.shape[1:])
        step = lambda total, term: (compensated.add(total, *term), None)  # noqa: E731
        total, _ = jax.lax.scan(step, total, (c, leaf))
        return compensated.value(total)

    return jax.tree.map(combine, stacked)


def weighted_sum(coefficients: Iterable[float], trees: Iterable[Params]) -> Params:
    """sum_k c_k theta_k as float32 numpy leaves, multiply and add; takes one tree at a time."""
    total = None
    for c, params in zip(coefficients, trees, strict=True):
        term = jax.tree.map(lambda leaf, c=c: np.float32(c) * leaf.astype(np.float32), params)
        total = term if total is None else jax.tree.map(np.add, total, term)
    if total is None:
        raise ValueError('a weighted sum of no trees')
    return jax.tree.map(np.asarray, total)


def stack(trees: Sequence[Params]) -> Params:
    """K trees with leaves [...] -> one tree of numpy leaves [K, ...]."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def lerp(a: Params, b: Params, weight: Array | float) -> Params:
    """a + weight (b - a)."""
    return jax.tree.map(lambda x, y: x + weight * (y - x), a, b)


def flatten(params: Params) -> dict[tuple[str, ...], Any]:
    """Nested dicts -> {path: leaf}."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {tuple(part.key for part in path): leaf for path, leaf in leaves}


def unflatten(flat: Mapping[tuple[str, ...], Any]) -> Params:
    """{path: leaf} -> nested dicts."""
    params = {}
    for (*outer, name), leaf in flat.items():
        node = params
        for part in outer:
            node = node.setdefault(part, {})
        node[name] = leaf
    return params


def count(params: Params) -> int:
    """Number of parameters in the tree: of all values but the constants (leaves named FIXED...)."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return sum(
        int(np.prod(leaf.shape))
        for path, leaf in leaves
        if not (path and str(getattr(path[-1], 'key', '')).startswith(FIXED))
    )
