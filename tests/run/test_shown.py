"""What an opened run shows: itself, its weights, what differs from another; from any storage."""

import contextlib
import io
import os
import sys

import chex
import jax
import numpy as np
import pytest
from etils.epath.testing import mock_epath

from cm_jax import checkpoint
from cm_jax.core import tree
from cm_jax.run import open_run
from cm_jax.run_folder import TRAJECTORY
from cm_jax.sharding import for_weights, make_mesh
from tests.helpers import commands, tiny
from tests.helpers.refusals import refusal
from tests.helpers.run_folders import untrained_run

# Itself


def test_a_run_says_what_it_is_and_reads_no_weights(trained, monkeypatch):
    count = tree.count(trained.params())
    monkeypatch.setattr(checkpoint, 'load', None)
    text = repr(trained)
    title, *rest = text.splitlines()
    lines = {line[2:10].strip(): line[12:] for line in rest}
    assert title == str(trained.workdir) and lines['method'].startswith('ECT')
    assert f'{count:,} parameters' in lines['network']
    assert '3 snapshots: 0, 6, 12' in lines['steps'] and '0.9, power0.1' in lines['averages']
    assert lines['scores'].startswith('fd_lenet_40') and 'trajectory' in lines['size']
    html = trained._repr_html_()
    assert f'{count:,} parameters' in html and '<table>' in html


def test_the_scores_that_are_shown_are_the_lowest(trained):
    values = sorted(row['fd_lenet'] for row in trained.scores())
    lines = [line for line in repr(trained).splitlines() if 'fd_lenet_40' in line]
    shown = [float(line.split('fd_lenet_40 ')[1].split()[0]) for line in lines]
    np.testing.assert_allclose(shown, values[: len(shown)], rtol=1e-3)


def test_a_run_without_scores_says_what_makes_them(opened):
    assert 'python -m cm_jax.evaluate' in repr(opened)


@contextlib.contextmanager
def bucket(folder):
    """What lies in a folder is found under gs://bucket too, by the operations that clouds have."""

    def at(path):
        return os.fspath(path).replace('gs://bucket', str(folder))

    def read(original, path, mode):
        assert mode in ('r', 'rb'), mode
        return io.BytesIO(original(at(path), 'rb').read())

    moved = lambda original, path: original(at(path))  # noqa: E731
    with mock_epath(open=read, exists=moved, isdir=moved, listdir=moved, stat=moved):
        yield


def test_a_run_opens_from_cloud_storage(trained, stored):
    with bucket(stored):
        run = open_run('gs://bucket/ect')
        assert str(run.workdir) == 'gs://bucket/ect'
        assert run.steps() == trained.steps() and run.emas(6) == trained.emas(6)
        assert run.metrics() == trained.metrics() and run.scores() == trained.scores()
        ours, theirs = (repr(each).splitlines()[1:] for each in (run, trained))
        assert ours == [line for line in theirs if not line.strip().startswith('size')]
        assert run.compare(run) == []


# Its weights


def test_the_tree_of_weights_says_what_each_array_is(opened):
    params, shown = opened.params(3), opened.tree(3)
    rows = {row['path']: row for row in shown.table()}
    flat = tree.flatten(params)
    assert list(rows) == ['/'.join(path) for path in flat]
    for path, leaf in flat.items():
        row = rows['/'.join(path)]
        assert (row['size'], row['dtype']) == (leaf.size, 'float32')
        assert row['shape'] == ' x '.join(map(str, leaf.shape))
        assert row['saved_as'] == 'whole on 1 device'
        np.testing.assert_allclose(row['norm'], np.linalg.norm(leaf), rtol=1e-6)
    total = np.sqrt(sum(row['norm'] ** 2 for row in rows.values()))
    assert f'{tree.count(params):,} parameters' in repr(shown) and f'{total:.4g}' in repr(shown)


def test_the_tree_is_shown_by_treescope_where_that_is_installed(opened, monkeypatch):
    shown = opened.tree(ema='0.9')
    assert 'treescope' in shown._repr_html_()
    monkeypatch.setitem(sys.modules, 'treescope', None)
    assert shown._repr_html_() == shown.table()._repr_html_()


def save_spread(folder):
    """A run whose step 5 was saved by a process of several devices, split as 'fsdp' splits."""
    run = untrained_run(folder, tiny.get_config('edm'), steps=(2,))
    params, mesh = run.params(), make_mesh()
    spread = jax.device_put(params, for_weights(params, mesh, 'fsdp'))
    with checkpoint.Stream(run.workdir / TRAJECTORY) as stream:
        stream.save(5, {'params': spread}, {'step': 5})
    return True


@pytest.mark.devices
def test_what_four_devices_saved_opens_here_and_says_so(tmp_path):
    folder = tmp_path / 'run'
    assert commands.on_devices(4, f'save_spread({str(folder)!r})', 'tests.run.test_shown')
    run = open_run(folder)
    assert jax.device_count() == 1
    chex.assert_trees_all_equal(run.params(5), run.params(2))
    kinds = {info.saved_as for info in run.tree(5).arrays.values()}
    assert {'whole on 4 devices', 'axis 0 over 4 devices'} <= kinds
    for info in run.tree(5).arrays.values():
        if 'over' in info.saved_as:
            assert info.shape[int(info.saved_as.split()[1])] % 4 == 0, info


def test_norms_are_those_of_weights_and_of_updates_by_block(trained):
    table = trained.norms()
    assert [row['step'] for row in table if row['block'] == 'all'] == [0, 6, 12]
    rows = {(row['step'], row['block']): row for row in table}
    blocks = {block for _, block in rows} - {'all'}
    before, after = trained.params(6), trained.params(12)
    for block in blocks:
        (old, new) = (tree.top_level(params)[block] for params in (before, after))
        moved = jax.tree.map(np.subtract, new, old)
        for key, part in (('weights', new), ('update', moved)):
            flat = np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(part)])
            np.testing.assert_allclose(rows[12, block][key], np.linalg.norm(flat), rtol=1e-5)
        assert rows[0, block]['update'] is None
    squares = sum(rows[12, block]['update'] ** 2 for block in blocks)
    np.testing.assert_allclose(rows[12, 'all']['update'], np.sqrt(squares))


def test_norms_are_of_the_snapshots_that_hold_the_average(opened):
    assert {row['step'] for row in opened.norms('0.9')} == {3}
    assert opened.steps_with('0.9') == [3] and opened.steps_with('') == [0, 3]
    assert 'unknown average of step 3' in refusal(opened.norms, '0.5')


# Another run


def test_runs_are_compared_in_config_steps_and_scores(opened, trained, tmp_path):
    assert opened.compare(opened.workdir) == [] == trained.compare(trained)
    config = tiny.get_config('ect')
    config.model.channels, config.batch_size = 8, 32
    other = untrained_run(tmp_path / 'other', config, steps=(0, 3, 9))
    rows = {row['what']: (row['this'], row['other']) for row in opened.compare(other)}
    parameters = tuple(tree.count(run.params()) for run in (opened, other))
    assert rows == {
        'config.batch_size': (16, 32),
        'config.model.channels': (4, 8),
        'parameters': parameters,
        'snapshots': ([0, 3], [0, 3, 9]),
    }
    differing = {row['what'].split()[0]: row for row in opened.compare(trained)}
    assert differing['fd_lenet_40']['this'] == 'absent'
