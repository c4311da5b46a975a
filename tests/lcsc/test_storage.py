"""Where snapshots lie in a search: the same scores from device, host and disk."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax.errors import UserError
from cm_jax.lcsc import space as spaces
from cm_jax.lcsc import storage
from tests.helpers.small_search import (
    COEFFICIENTS,
    COUNT,
    combined,
    numpy_combination,
    small_fitness,
    small_snapshots,
)


@pytest.fixture(scope='module')
def on_device():
    return small_fitness()[0](COEFFICIENTS, 1)


@pytest.mark.parametrize('where', ['host', 'disk'])
def test_streamed_snapshots_give_the_scores_of_those_on_the_device(where, on_device):
    fitness, loaded = small_fitness(where)
    del loaded[:]
    np.testing.assert_allclose(fitness(COEFFICIENTS, 1), on_device, rtol=1e-5)
    assert loaded == ([0, 10, 20, 30, 40] if where == 'disk' else [])  # once for all candidates


def test_no_more_candidates_than_asked_are_in_memory_together(on_device):
    fitness, loaded = small_fitness('disk', at_once=2)
    del loaded[:]
    np.testing.assert_allclose(fitness(COEFFICIENTS, 1), on_device, rtol=1e-5)
    assert loaded == [0, 10, 20, 30, 40] * -(-len(COEFFICIENTS) // 2)  # once for every two


@pytest.mark.slow
def test_bfloat16_storage_is_near_float32_and_its_last_snapshot_exact(on_device):
    population = np.concatenate([COEFFICIENTS, np.eye(COUNT)])
    exact = small_fitness()[0](population, 1)
    found = {w: small_fitness(w, 'bfloat16')[0](population, 1) for w in storage.WHERE}
    for where in ('host', 'disk'):
        np.testing.assert_allclose(found[where], found['device'], rtol=1e-4)
    np.testing.assert_array_equal(found['device'][-1], exact[-1])
    assert not np.array_equal(found['device'][:-1], exact[:-1])
    np.testing.assert_allclose(found['device'], exact, rtol=0.02)
    np.testing.assert_array_equal(exact[: len(on_device)], on_device)


def test_bfloat16_loses_one_part_in_256_of_the_differences_from_the_last_snapshot():
    networks = small_snapshots()
    stored = storage.store(lambda k: networks[k], range(COUNT), dtype='bfloat16')
    leaves = jax.tree.leaves(stored.stacked)
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype(jnp.bfloat16)}
    c = np.float32(COEFFICIENTS[0])
    found = combined(stored, spaces.ONE, c[None])[0]
    for one, *each in zip(*map(jax.tree.leaves, (found, *networks)), strict=True):
        each = np.stack(each).astype(np.float64)
        exact = np.tensordot(np.float64(c), each, 1)
        most = np.tensordot(np.abs(c), np.abs(each - each[-1:]), 1) * 2.0**-8
        assert np.all(np.abs(np.asarray(one, np.float64) - exact) <= most + 1e-6)


def test_what_is_stored_and_how_is_checked():
    for settings, words in (
        ({'where': 'tape'}, 'device, disk, host'),
        ({'dtype': 'int8'}, 'bfloat16'),
    ):
        with pytest.raises(UserError, match=words):
            storage.store(lambda k: {}, range(2), **settings)


@pytest.mark.parametrize('where', storage.WHERE)
@pytest.mark.parametrize('groups', [(), ('out/b', 'out', '')])
def test_a_search_makes_the_same_weights_with_large_coefficients_of_both_signs(where, groups):
    """Within float32's rounding of the largest terms, and exactly theta_K where that is asked for."""
    networks = small_snapshots()
    space = spaces.build(groups, networks[0])
    rng = np.random.default_rng(1)
    rows = rng.uniform(-6, 6, (3, space.groups, COUNT))
    rows[:, :, -1] += 1 - rows.sum(2)
    rows[2] = np.eye(COUNT)[-1]
    rows = np.float32(rows.reshape(3, -1))
    stored = storage.store(lambda k: networks[k], range(COUNT), where=where)
    for row, found in zip(rows, combined(stored, space, rows)):
        exact = numpy_combination(space, networks, row)
        close = lambda x, y: np.testing.assert_allclose(x, y, atol=2e-6)  # noqa: E731
        jax.tree.map(close, found, exact)
    jax.tree.map(np.testing.assert_array_equal, found, networks[-1])


@pytest.mark.parametrize('where', storage.WHERE)
def test_a_snapshot_that_is_not_finite_is_refused_by_its_step(where):
    networks = small_snapshots()
    networks[2]['in']['w'][3] = np.inf
    space, rows = spaces.ONE, np.eye(COUNT)[:1]
    with pytest.raises(UserError, match='the snapshot 20 has weights that are not finite'):
        load = lambda step: networks[step // 10]  # noqa: E731
        combined(storage.store(load, range(0, 10 * COUNT, 10), where=where), space, rows)
