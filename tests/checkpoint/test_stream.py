"""Checkpoints: steps that are whole, on a full disk too, and errors that say what there is."""

import resource

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax import checkpoint
from cm_jax.errors import UserError


def weights(seed=0):
    """A tree of two dtypes and a scalar."""
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=(3, 4)).astype(np.float32)
    return {
        'conv': {'kernel': kernel, 'count': np.array(seed, np.int32)},
        'half': np.arange(5, dtype=jnp.bfloat16),
    }


def assert_same(found, wanted):
    """Equal structure, dtypes and bits."""
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert np.asarray(one).dtype == np.asarray(other).dtype
        np.testing.assert_array_equal(one, other)


@pytest.fixture(scope='module')
def stored(tmp_path_factory):
    """A stream of the steps 0, 5, 10; each has `params` and `ema_0.9`."""
    folder = tmp_path_factory.mktemp('checkpoint') / 'trajectory'
    with checkpoint.Stream(folder) as stream:
        for step in (0, 5, 10):
            items = {'params': weights(step), 'ema_0.9': weights(step + 1)}
            stream.save(step, items, {'step': step, 'loss': 0.5})
    return folder


def test_an_item_is_loaded_bit_for_bit_without_knowing_the_model(stored):
    assert checkpoint.list_steps(stored) == [0, 5, 10]
    for step in (0, 5, 10):
        assert_same(checkpoint.load(stored, step, 'params'), weights(step))
        assert_same(checkpoint.load(stored, step, 'ema_0.9'), weights(step + 1))
    leaves = jax.tree.leaves(checkpoint.load(stored, 5, 'params'))
    assert not any(isinstance(leaf, jax.Array) for leaf in leaves)  # numpy: no device is needed


def test_a_step_is_restored_with_what_was_said_of_it(stored):
    with checkpoint.Stream(stored, create=False) as stream:
        assert stream.steps() == [0, 5, 10]
        templates = {'ema_0.9': weights(), 'params': weights()}
        trees, meta = stream.restore(5, templates)
    assert meta == {'step': 5, 'loss': 0.5}
    assert list(trees) == ['ema_0.9', 'params']
    assert_same(jax.tree.map(np.asarray, trees['params']), weights(5))
    assert_same(jax.tree.map(np.asarray, trees['ema_0.9']), weights(6))


def test_a_missing_step_or_item_is_told_with_what_there_is(stored, tmp_path):
    with pytest.raises(UserError, match=r'no step 7 in .*trajectory; there are: 0, 5, 10$'):
        checkpoint.load(stored, 7, 'params')
    with pytest.raises(UserError, match=r"'ema_0.8' \(did you mean 'ema_0.9'.*: ema_0.9, params$"):
        checkpoint.load(stored, 5, 'ema_0.8')
    with pytest.raises(UserError, match=r"'meta'.*legal: ema_0.9, params$"):
        checkpoint.load(stored, 5, 'meta')
    with pytest.raises(UserError, match=r'no step 0 in .*nowhere; there are: none$'):
        checkpoint.load(tmp_path / 'nowhere', 0, 'params')


def test_many_steps_are_told_in_one_line(tmp_path):
    for step in range(0, 200, 10):
        (tmp_path / str(step)).mkdir()
    with pytest.raises(UserError, match=r'0, 10, 20, 30, 40, \.\.\. 180, 190 \(20 steps\)$'):
        checkpoint.load(tmp_path, 5, 'params')


def test_what_is_no_whole_step_is_not_listed(tmp_path):
    assert checkpoint.list_steps(tmp_path / 'nowhere') == []
    for name in ('10', '9', '11.orbax-checkpoint-tmp-3', 'notes', '-1'):
        (tmp_path / name).mkdir()
    assert checkpoint.list_steps(tmp_path) == [9, 10]


def test_the_newest_are_kept_and_later_ones_deleted(tmp_path):
    with checkpoint.Stream(tmp_path / 'resume', keep=2) as stream:
        for step in (1, 2, 3):
            stream.save(step, {'params': weights(step)}, {})
        stream.wait()
        assert stream.steps() == checkpoint.list_steps(tmp_path / 'resume') == [2, 3]
        stream.delete_after(3)
        assert stream.steps() == [2, 3]
        stream.delete_after(2)
        assert stream.steps() == [2]
        stream.save(3, {'params': weights(7)}, {})
    assert_same(checkpoint.load(tmp_path / 'resume', 3, 'params'), weights(7))


def test_a_step_is_not_saved_over(tmp_path):
    with checkpoint.Stream(tmp_path / 'stream') as stream:
        stream.save(4, {'params': weights(0)}, {})
        with pytest.raises(Exception, match=r'(?i)already'):
            stream.save(4, {'params': weights(1)}, {})
    assert_same(checkpoint.load(tmp_path / 'stream', 4, 'params'), weights(0))


def test_the_error_under_way_is_the_one_that_is_told(tmp_path):
    with (
        pytest.raises(KeyError, match='mine'),
        checkpoint.Stream(tmp_path / 'stream') as stream,
    ):
        stream.save(1, {'params': weights()}, {})
        raise KeyError('mine')
    assert checkpoint.list_steps(tmp_path / 'stream') == [1]


def test_a_save_on_a_full_disk_leaves_the_steps_before_it(tmp_path):
    tree = {'w': np.random.default_rng(0).normal(size=40_000)}
    with checkpoint.Stream(tmp_path / 'stream') as stream:
        stream.save(0, {'params': tree}, {})
        stream.wait()
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
        try:
            with pytest.raises(UserError, match=r'the disk is full.*steps up to 0 are whole'):
                stream.save(1, {'params': tree}, {})
                stream.wait()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert stream.steps() == [0]
        stream.save(1, {'params': tree}, {})
        stream.wait()
        assert stream.steps() == [0, 1]
    np.testing.assert_array_equal(checkpoint.load(tmp_path / 'stream', 1, 'params')['w'], tree['w'])
