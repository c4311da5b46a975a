"""Arithmetic on trees of weights: linear combinations, sums, counts."""

import chex
import jax
import numpy as np
import pytest

from cm_jax.core import tree
from tests.helpers.trees import snapshots


def test_one_hot_combination_is_that_snapshot_bit_for_bit():
    trees = snapshots(7)
    stacked = tree.stack(trees)
    combine = jax.jit(tree.linear_combination)
    for k in range(7):
        found = combine(stacked, np.eye(7)[k])
        jax.tree.map(np.testing.assert_array_equal, found, trees[k])


def test_one_hot_combination_does_not_look_at_the_other_snapshots():
    rows = np.array([[1e30, np.inf, np.nan, 1.0], [-0.0, 0.0, 3e-9, -7.3], [np.inf, 3e38, 1, 1]])
    stacked = np.float32(rows)
    found = np.asarray(jax.jit(tree.linear_combination)(stacked, np.eye(3)[1]))
    np.testing.assert_array_equal(found.view(np.uint32), stacked[1].view(np.uint32))
    assert np.isnan(tree.linear_combination(stacked, np.array([1e-9, 1.0, 0.0]))[1:3]).all()
    assert np.isnan(tree.linear_combination(stacked[1:2], np.array([np.nan]))).all()


def test_combination_with_large_coefficients_of_both_signs_is_that_of_float64():
    """Each entry within 1e-6 of max(1, |entry|), also where 50 terms of 6 cancel to nothing."""
    k = 50
    rng = np.random.default_rng(1)
    signs = np.repeat([1.0, -1.0], k // 2)
    for spread in (1.0, 0.01):
        for coefficients in (6 * rng.permutation(signs), rng.uniform(-6, 6, k)):
            coefficients = np.float32(coefficients)
            stacked = tree.stack(snapshots(k, spread=spread))
            found = jax.jit(tree.linear_combination)(stacked, coefficients)
            for leaf, one in zip(jax.tree.leaves(stacked), jax.tree.leaves(found), strict=True):
                exact = np.tensordot(coefficients.astype(np.float64), leaf.astype(np.float64), 1)
                assert one.dtype == np.float32
                error = np.abs(np.asarray(one, np.float64) - exact)
                assert np.all(error < 1e-7 * np.maximum(1, np.abs(exact)))


def test_stack_count_and_lerp():
    trees = snapshots(2)
    stacked = tree.stack(trees)
    assert tree.count(stacked) == 2 * tree.count(trees[0]) == 2 * (288 + 8 + 500)
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
