"""Arithmetic on trees of weights: linear combinations, sums, counts."""

import chex
import jax
import numpy as np
import pytest

from cm_jax.core import tree
from tests.helpers.trees import snapshots


def test_count_and_lerp():
    trees = snapshots(2)
    assert tree.count(trees[0]) == 288 + 8 + 500
    jax.tree.map(np.testing.assert_array_equal, tree.lerp(*trees, 0.0), trees[0])
    middle = tree.lerp(*trees, 0.5)
    jax.tree.map(
        lambda a, b, m: np.testing.assert_allclose(m, (a + b) / 2, rtol=1e-5, atol=1e-6),
        *trees,
        middle,
    )


def test_weighted_sum_takes_one_tree_at_a_time_and_stays_in_float32():
    alive = []

    def trees():
        for i in range(4):
            alive.append(i)
            yield {'a': np.float32([i, 2 * i]), 'b': {'c': np.float32(i)}}

    found = tree.weighted_sum([1, -2, 3, 0.5], trees())
    chex.assert_trees_all_equal(found, {'a': np.float32([5.5, 11]), 'b': {'c': np.float32(5.5)}})
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(found))
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype('float32')}
    with pytest.raises(ValueError, match='of no trees'):
        tree.weighted_sum([], [])
    with pytest.raises(ValueError, match='shorter'):
        tree.weighted_sum([1, 2, 3, 4, 5], trees())
