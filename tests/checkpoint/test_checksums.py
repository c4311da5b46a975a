"""Checksums: what they notice, and that they do not depend on how an array is spread over devices."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cm_jax.checkpoint import checksums
from tests.helpers import commands

DTYPES = ('float32', 'bfloat16', 'float64', 'int32', 'uint8', 'bool')


def tree(seed=0):
    """One array of each dtype, a scalar, an array with no elements, and one array twice."""
    rng = np.random.default_rng(seed)
    arrays = {name: rng.integers(0, 2, (3, 5)).astype(jnp.dtype(name)) for name in DTYPES}
    arrays |= {'scalar': np.array(seed, np.int32), 'none': np.zeros((0, 2), np.float32)}
    return {'a': arrays, 'b': (arrays['float32'] + 1, [arrays['float32'] + 1])}


def test_the_same_tree_differs_nowhere_whatever_its_containers_and_its_memory_are():
    sums = checksums.of_tree(tree())
    assert checksums.differing(tree(), sums) == []
    by_columns = jax.tree.map(lambda array: np.array(array, order='F'), tree())
    assert checksums.differing(by_columns, sums) == []
    as_dicts = tree() | {'b': {'0': tree()['b'][0], '1': {'0': tree()['b'][1][0]}}}
    assert checksums.differing(as_dicts, sums) == []
    single = {'a': {name: jnp.asarray(tree()['a'][name]) for name in ('float32', 'bfloat16')}}
    assert checksums.of_tree(single).items() <= sums.items()


@pytest.mark.parametrize('name', DTYPES)
@pytest.mark.parametrize('bit', [0, 7])
def test_one_flipped_bit_is_noticed_where_it_is(name, bit):
    sums, changed = checksums.of_tree(tree()), copy.deepcopy(tree())
    changed['a'][name].reshape(-1).view(np.uint8)[-1] ^= 1 << bit
    assert checksums.differing(changed, sums) == [f'a/{name}']


def test_bits_that_sums_would_cancel_are_noticed():
    """Two signs, two arrays that change places, and two rows that do."""
    one = {'x': np.arange(1.0, 7).reshape(3, 2), 'y': np.arange(7.0, 13).reshape(3, 2)}
    sums = checksums.of_tree(one)
    signs = one['x'] * np.array([[-1, -1], [1, 1], [1, 1]])
    assert checksums.differing(one | {'x': signs}, sums) == ['x']
    assert checksums.differing({'x': one['y'], 'y': one['x']}, sums) == ['x', 'y']
    assert checksums.differing(one | {'y': one['y'][[1, 0, 2]]}, sums) == ['y']


def test_another_name_shape_or_dtype_is_noticed():
    sums = checksums.of_tree({'x': np.zeros(4, np.float32), 'y': np.zeros(1)})
    assert checksums.differing({'x': np.zeros(4, np.float32)}, sums) == ['y']
    more = {'x': np.zeros(4, np.float32), 'y': np.zeros(1), 'z': np.zeros(1)}
    assert checksums.differing(more, sums) == ['z']
    assert checksums.differing(more | {'z': np.zeros(0)}, sums) == ['z']
    for other in (np.zeros((2, 2), np.float32), np.zeros(4, np.int32), np.zeros(2, np.float64)):
        assert checksums.differing({'x': other, 'y': np.zeros(1)}, sums) == ['x']


def test_a_key_of_random_numbers_is_the_numbers_in_it():
    sums = checksums.of_tree({'key': jax.random.key(3)})
    assert checksums.differing({'key': jax.random.key(3)}, sums) == []
    assert checksums.differing({'key': jax.random.key_data(jax.random.key(3))}, sums) == []
    assert checksums.differing({'key': jax.random.key(4)}, sums) == ['key']


SHAPES = {'split': (8, 6), 'last': (3, 4), 'whole': (3, 3)}
PLACES = {'split': ('data',), 'last': (None, 'data'), 'whole': ()}
OTHER_PLACES = {'split': (None, 'data'), 'last': (), 'whole': ()}


def spread(places=PLACES, devices=1, seed=0):
    """Arrays over so many devices."""
    rng, mesh = np.random.default_rng(seed), Mesh(jax.devices()[:devices], ('data',))
    return {
        name: jax.device_put(
            rng.normal(size=shape).astype(np.float32),
            NamedSharding(mesh, PartitionSpec(*places[name])),
        )
        for name, shape in SHAPES.items()
    }


def saved_on_four_checked_on_others():
    """The checksums of four devices, and where arrays on more and fewer devices differ from them."""
    sums = checksums.of_tree(spread(devices=4))
    trees = [spread(devices=4), spread(devices=2), spread(OTHER_PLACES, 2), spread(PLACES, 4, 1)]
    return sums, [checksums.differing(tree, sums) for tree in trees]


@pytest.mark.devices
def test_what_four_devices_saved_is_checked_on_others_and_on_none():
    module = 'tests.checkpoint.test_checksums'
    sums, found = commands.on_devices(4, 'saved_on_four_checked_on_others()', module)
    assert found == [[], [], [], sorted(SHAPES)]
    assert sums['split'].keys() == {f'float32[{i}:{i + 2},0:6]' for i in (0, 2, 4, 6)}
    assert sums['whole'].keys() == {'float32[0:3,0:3]'}
    whole = jax.tree.map(np.asarray, spread())
    assert checksums.differing(whole, sums) == checksums.differing(spread(), sums) == []
    changed = spread()['split'].at[5, 0].add(1)
    assert checksums.differing(whole | {'split': changed}, sums) == ['split']
    fewer = {name: part for name, part in sums['split'].items() if '[2:4' not in name}
    assert checksums.differing(whole, sums | {'split': fewer}) == ['split']
