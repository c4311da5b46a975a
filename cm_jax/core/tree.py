"""Arithmetic on trees of arrays."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from cm_jax.types import Array, Params

FIXED = 'fixed_'  # a leaf whose name begins with this is a constant and not a parameter


def weighted_sum(coefficients: Iterable[float], trees: Iterable[Params]) -> Params:
    """Returns sum_k c_k theta_k as float32 numpy leaves, computed in float32.

    The trees are taken from the iterable one at a time. Raises ValueError if there are none, or if
    there are not as many coefficients as trees.
    """
    total = None
    for c, params in zip(coefficients, trees, strict=True):
        term = jax.tree.map(lambda leaf, c=c: np.float32(c) * leaf.astype(np.float32), params)
        total = term if total is None else jax.tree.map(np.add, total, term)
    if total is None:
        raise ValueError('a weighted sum of no trees')
    return jax.tree.map(np.asarray, total)


def lerp(a: Params, b: Params, weight: Array | float) -> Params:
    """Returns a + weight (b - a), leaf by leaf: the linear interpolation from a to b."""
    return jax.tree.map(lambda x, y: x + weight * (y - x), a, b)


def flatten(params: Params) -> dict[tuple[str, ...], Any]:
    """Returns the leaves of nested dicts by their paths: {('a', 'b'): leaf} for {'a': {'b': leaf}}."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {tuple(part.key for part in path): leaf for path, leaf in leaves}


def unflatten(flat: Mapping[tuple[str, ...], Any]) -> Params:
    """Returns the nested dicts that `flatten` makes {path: leaf} of."""
    params: dict[str, Any] = {}
    for (*outer, name), leaf in flat.items():
        node = params
        for part in outer:
            node = node.setdefault(part, {})
        node[name] = leaf
    return params


def top_level(params: Params) -> dict[str, Params]:
    """Returns the parts of nested dicts at the level where they first part, by their paths.

    {'net/conv': ..., 'net/dense': ...} for {'net': {'conv': ..., 'dense': ...}}.
    """
    outer, node = '', params
    while len(node) == 1:
        (name,) = node
        if not isinstance(node[name], Mapping):
            break
        outer, node = f'{outer}{name}/', node[name]
    return {outer + name: part for name, part in node.items()}


def count(params: Params) -> int:
    """Returns the number of values in all leaves, except the constants (see FIXED)."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return sum(
        int(np.prod(leaf.shape))
        for path, leaf in leaves
        if not (path and str(getattr(path[-1], 'key', '')).startswith(FIXED))
    )
