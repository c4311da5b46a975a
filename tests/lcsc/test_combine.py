"""Snapshots that are combined: the window of steps, and the combination of each group."""

import jax
import numpy as np
import pytest

from cm_jax.errors import UserError
from cm_jax.lcsc import combine
from cm_jax.lcsc import space as spaces
from tests.helpers.small_search import COUNT, numpy_combination, small_snapshots


def test_the_window_keeps_the_last_snapshot_and_needs_two():
    steps = [0, 10, 20, 30, 40]
    assert combine.window(steps, 0, None, 1) == steps
    assert combine.window(steps, 5, 35, 1) == [10, 20, 30]
    assert combine.window(steps, 0, None, 3) == [10, 40]
    with pytest.raises(UserError, match='holds 1 of the 5 snapshots'):
        combine.window(steps, 40, None, 1)
    with pytest.raises(UserError, match='holds 0 of the 5 snapshots'):
        combine.window(steps, 50, None, 1)


@pytest.mark.parametrize('groups', [(), ('out/b', 'out', ''), 'top_level', 'leaves'])
def test_combined_weights_are_the_linear_combination_of_each_group(groups):
    networks = small_snapshots()
    space = spaces.build(groups, networks[0])
    c = 6 * np.random.default_rng(1).normal(size=space.groups * COUNT)
    exact = numpy_combination(space, networks, c)
    found = combine.combine(lambda k: networks[k], range(COUNT), c, space)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6), found, exact)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype(np.float32)}


def test_one_hot_rows_take_each_group_from_its_snapshot_bit_for_bit():
    networks = small_snapshots()
    networks[2]['in']['w'][:] = np.inf
    space = spaces.build('top_level', networks[0])
    assert space.patterns == ('^in(/|$)', '^out(/|$)')
    c = np.concatenate([np.eye(COUNT)[1], np.eye(COUNT)[3]])
    found = combine.combine(lambda k: networks[k], range(COUNT), c, space)
    expected = {'in': networks[1]['in'], 'out': networks[3]['out']}
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_large_coefficients_of_both_signs_are_combined_as_in_float64():
    """Each entry is within a rounding to float32 of the exact sum, also where 50 terms of 6 cancel."""
    k, rng = 50, np.random.default_rng(1)
    snapshots = [{'w': rng.normal(size=(20, 5)).astype(np.float32)} for _ in range(k)]
    stacked = np.float64([snapshot['w'] for snapshot in snapshots])
    for coefficients in (
        6 * rng.permutation(np.repeat([1.0, -1.0], k // 2)),
        rng.uniform(-6, 6, k),
    ):
        coefficients = np.float32(coefficients)
        combined = combine.combine(lambda i: snapshots[i], range(k), coefficients)['w']
        exact = np.tensordot(np.float64(coefficients), stacked, 1)
        assert np.all(np.abs(combined - exact) < 1e-7 * np.maximum(1, np.abs(exact)))
