"""Weights of a few hundred numbers, near one point."""

import jax
import numpy as np


def snapshots(k, seed=0, spread=1.0):
    """K trees near one point, as the snapshots of one run are."""
    rng = np.random.default_rng(seed)
    shapes = {'a': {'kernel': (3, 3, 4, 8), 'bias': (8,)}, 'b': (500,)}
    is_shape = lambda x: isinstance(x, tuple)  # noqa: E731
    centre = jax.tree.map(rng.standard_normal, shapes, is_leaf=is_shape)
    return [
        jax.tree.map(lambda c: np.float32(c + spread * rng.standard_normal(c.shape)), centre)
        for _ in range(k)
    ]
