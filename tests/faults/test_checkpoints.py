"""Damaged checkpoints: nothing wrong in silence, the newest whole step goes on, nothing is lost."""

import dataclasses
import pathlib
import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from etils import epath

from cm_jax import checkpoint
from cm_jax.errors import UserError
from cm_jax.lcsc import snapshots
from cm_jax.lcsc.job import open_job
from cm_jax.run import open_run
from tests.helpers import commands, tiny, tiny_search
from tests.helpers.faults import damage_weights, files_in, flip_bytes, weights_file
from tests.helpers.run_folders import untrained_run
from tests.helpers.tiny import search_settings_of

META = {'data': {'consumed': 1280}}


# What reads a damaged file may still be told of it when it is long done.
pytestmark = pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')


def state(seed):
    """Weights, whose random bits do not compress, a moment and a counter, as a training state."""
    kernel = np.random.default_rng(seed).integers(0, 256, (64, 64), dtype=np.uint8)
    params = {'conv': {'kernel': kernel, 'bias': np.arange(4, dtype=jnp.bfloat16)}}
    return {'step': np.array(seed, np.int32), 'params': params, 'moments': (params['conv'], ())}


def items(seed):
    """The items of a step: `state` on a device, as in training, and `params` as numpy arrays."""
    return {'state': jax.tree.map(jnp.asarray, state(seed)), 'params': state(seed)['params']}


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    """A stream of the steps 4 and 8."""
    folder = tmp_path_factory.mktemp('faults') / 'resume'
    with checkpoint.Stream(folder) as stream:
        for step in (4, 8):
            stream.save(step, items(step), META)
    return folder


@pytest.fixture
def stream_folder(saved, tmp_path):
    """A copy of it."""
    return shutil.copytree(saved, tmp_path / 'resume')


def is_right(folder, step):
    """Whether a step is read as it was saved, False if damage is noticed; fails if it is neither."""
    try:
        with checkpoint.Stream(folder, create=False) as stream:
            trees, meta = stream.restore(step, items(step))
        loaded = checkpoint.load(folder, step, 'params')
    except checkpoint.DamagedStep as error:
        assert f'of step {step} in {folder} is damaged' in str(error), error
        return False
    assert meta == META
    chex.assert_trees_all_equal(trees, items(step))
    chex.assert_trees_all_equal(loaded, state(step)['params'])
    return True


def check_flips(folder, path, seeds):
    """Flips bytes of one file and reads the step again, once for each seed."""
    content, noticed = path.read_bytes(), []
    for seed in seeds:
        flip_bytes(path, seed)
        noticed.append(not is_right(folder, 8))
        path.write_bytes(content)
    return noticed


def test_flipped_bytes_of_weights_are_noticed_where_the_library_would_not(stream_folder):
    item = stream_folder / '8' / 'params'
    assert check_flips(stream_folder, weights_file(item), range(3)) == [True] * 3
    flip_bytes(weights_file(item), 0)
    read = ocp.StandardCheckpointer().restore(item, state(8)['params'])
    assert np.any(read['conv']['kernel'] != state(8)['params']['conv']['kernel'])
    with pytest.raises(UserError, match=r"item 'params' of step 8 .*1 of 2 arrays.* conv/kernel$"):
        checkpoint.load(stream_folder, 8, 'params')


@pytest.mark.parametrize('item', ['meta', 'checksums', 'state', 'params'])
def test_flipped_bytes_of_any_file_are_noticed_or_change_nothing(stream_folder, item):
    for path in files_in(stream_folder / '8' / item):
        check_flips(stream_folder, path, range(1))


@pytest.mark.slow
def test_200_random_flips_are_noticed_or_change_nothing(stream_folder):
    files = files_in(stream_folder / '8')
    noticed = [
        check_flips(stream_folder, path, range(1, 1 + 200 // len(files) + 1)) for path in files
    ]
    assert sum(map(sum, noticed)) > 50


def empty(step: pathlib.Path) -> None:
    shutil.rmtree(step)
    step.mkdir()


DAMAGE = {
    'empty': empty,
    'state': lambda step: shutil.rmtree(step / 'state'),
    'no meta': lambda step: shutil.rmtree(step / 'meta'),
    'meta': lambda step: (step / 'meta' / 'metadata').write_text('{"data": {"consumed": 1281}}'),
    'checksums': lambda step: flip_bytes(step / 'checksums' / 'metadata', 0),
    '_METADATA': lambda step: (step / 'state' / '_METADATA').write_text('{'),
    'manifest': lambda step: flip_bytes(step / 'state' / 'manifest.ocdbt', 0),
    'shards': lambda step: (step / 'state' / 'array_metadatas' / 'process_0').write_text('{'),
    'weights': lambda step: flip_bytes(weights_file(step / 'state'), 0),
    'cut': lambda step: weights_file(step / 'state').write_bytes(b''),
}


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in files_in(folder)}


@pytest.mark.parametrize('kind', DAMAGE)
def test_the_newest_whole_step_is_restored_and_the_damaged_one_is_named(stream_folder, kind):
    DAMAGE[kind](stream_folder / '8')
    before = contents(stream_folder)
    with checkpoint.Stream(stream_folder) as stream:
        restored = stream.restore_newest({'state': items(4)['state']})
    assert restored.step == 4 and restored.meta == META
    chex.assert_trees_all_equal(restored.trees['state'], items(4)['state'])
    assert restored.damaged.keys() == {8}
    line = str(restored.damaged[8])
    assert f'of step 8 in {stream_folder} is damaged: ' in line and '\n' not in line
    assert len(line) < 300 + 2 * len(str(stream_folder))
    assert contents(stream_folder) == before


def test_a_step_that_was_set_aside_is_kept_and_comes_again(stream_folder):
    damaged = []
    for n in (1, 2):
        flip_bytes(stream_folder / '8' / 'meta' / 'metadata', n)
        damaged.append(contents(stream_folder / '8'))
        with checkpoint.Stream(stream_folder, keep=2) as stream:
            assert stream.set_aside(8, 'damaged') == stream_folder / f'8.damaged{n}'
            assert stream.steps() == [4]
            stream.save(8, items(8), META)
        assert is_right(stream_folder, 8)
    with checkpoint.Stream(stream_folder, keep=2) as stream:
        stream.save(12, items(12), META)
    names = sorted(path.name for path in stream_folder.iterdir())
    assert names == ['12', '8', '8.damaged1', '8.damaged2']
    assert damaged == [contents(stream_folder / name) for name in names[2:]]


def test_if_no_step_is_whole_nothing_is_changed(stream_folder):
    for step in ('4', '8'):
        flip_bytes(weights_file(stream_folder / step / 'state'), 0)
    before = contents(stream_folder)
    with (
        checkpoint.Stream(stream_folder) as stream,
        pytest.raises(UserError, match=r'no step in .* is whole: .*step 8 .*step 4 .*--fresh'),
    ):
        stream.restore_newest({'state': items(4)['state']})
    assert contents(stream_folder) == before


def test_a_state_of_another_program_is_no_damage(stream_folder):
    before = contents(stream_folder)
    for other in ({'step': jnp.int32(0)}, items(4)['state'] | {'step': jnp.zeros(3)}):
        with checkpoint.Stream(stream_folder) as stream, pytest.raises(ValueError) as raised:
            stream.restore_newest({'state': other})
        assert not isinstance(raised.value, UserError)
    assert contents(stream_folder) == before


def test_a_step_of_an_earlier_version_has_no_checksums_and_is_read_as_it_is(stream_folder, capfd):
    shutil.rmtree(stream_folder / '8' / 'checksums')
    assert is_right(stream_folder, 8)
    assert 'checksum' not in ''.join(capfd.readouterr())
    (stream_folder / '8' / 'state' / '_METADATA').write_text('{')
    with checkpoint.Stream(stream_folder) as stream:
        assert stream.restore_newest({'state': items(4)['state']}).step == 4


# The commands


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    """A run folder of the snapshots 0, 2, ..., 8, whose training has come to step 8."""
    folder = tmp_path_factory.mktemp('faults') / 'run'
    untrained_run(folder, tiny.get_config('ect'), steps=range(0, 9, 2))
    with checkpoint.Stream(folder / 'resume') as stream:
        stream.save(8, items(8), META)
    return folder


@pytest.fixture
def run_folder(made, tmp_path):
    """A copy of it."""
    return shutil.copytree(made, tmp_path / 'run')


@pytest.mark.devices
def test_evaluate_and_search_name_a_damaged_snapshot(run_folder, tmp_path):
    damage_weights(run_folder / 'trajectory' / '6' / 'params')
    damaged = f"item 'params' of step 6 in {run_folder}/trajectory is damaged"
    evaluate = [f'--workdir={run_folder}', '--ema=', '--sampler=onestep', '--step=6']
    assert damaged in commands.error('evaluate', *evaluate)
    search = ['--config=tests/helpers/tiny_search.py', f'--config.basis.workdir={run_folder}']
    search += [f'--workdir={tmp_path}/search', '--config.controls.posthoc=()']
    assert damaged in commands.error('search', *search)


def test_an_opened_run_names_damaged_and_lost_snapshots(run_folder):
    run = open_run(run_folder)
    assert run.lost_snapshots() == ''
    damage_weights(run_folder / 'trajectory' / '6' / 'params')
    with pytest.raises(checkpoint.DamagedStep, match=r"'params' of step 6 in .*run/trajectory is"):
        run.params(6)
    empty(run_folder / 'trajectory' / '2')
    with pytest.raises(UserError, match=r'step 2 in .*run/trajectory is damaged: it is empty$'):
        run.check_ema(2, '')
    shutil.rmtree(run_folder / 'trajectory' / '4')
    lost = f'{run_folder}/trajectory has lost the snapshots of these steps: 2, 4'
    assert run.lost_snapshots() == lost
    assert run.step() == 8
    shutil.rmtree(run_folder / 'trajectory' / '8')
    with pytest.warns(UserWarning, match='training came to step 8, and step 6 is taken'):
        assert run.step() == 6
    shutil.rmtree(run_folder / 'resume')  # now nothing says how far it had come
    assert run.step() == 6
    assert run.lost_snapshots() == ''


def test_a_search_goes_on_with_the_snapshots_that_it_began_with(run_folder, tmp_path):
    settings = search_settings_of(tiny_search.get_config())
    basis = dataclasses.replace(settings.basis, workdir=str(run_folder))
    job = open_job(dataclasses.replace(settings, basis=basis))
    snapshots.keep(epath.Path(tmp_path), job.origin())
    snapshots.keep(epath.Path(tmp_path), job.origin())
    shutil.rmtree(run_folder / 'trajectory' / '4')
    fewer = open_job(job.settings)
    with pytest.raises(UserError, match=r'other snapshots of .*/run: gone are .* 4, new .* none'):
        snapshots.keep(epath.Path(tmp_path), fewer.origin())


@pytest.mark.devices
@pytest.mark.slow
def test_training_goes_on_from_the_step_before_and_ends_with_the_same_bits(tmp_path):
    folder, whole = tmp_path / 'run', tmp_path / 'whole'
    arguments = ['train', '--config=tests/helpers/tiny.py:ect', f'--workdir={folder}']
    commands.run(*arguments)
    shutil.copytree(folder, whole)
    damage_weights(folder / 'resume' / '12' / 'state')
    before = contents(folder)
    out = commands.run(*arguments)
    assert f"warning: item 'state' of step 12 in {folder}/resume is damaged" in out
    assert f'it is now {folder}/resume/12.damaged1' in out and 'continues at step 8' in out
    run, straight = open_run(folder), open_run(whole)
    assert run.steps() == straight.steps()
    for step in run.steps():
        chex.assert_trees_all_equal(run.params(step), straight.params(step))
    losses = [[row['loss'] for row in each.metrics()] for each in (run, straight)]
    assert losses[0] == losses[1]
    after = contents(folder)
    for old, new in (
        ('resume/12/', 'resume/12.damaged1/'),
        ('trajectory/10/', 'trajectory/10.old1/'),
        ('trajectory/12/', 'trajectory/12.old1/'),
    ):
        kept = {path: content for path, content in before.items() if path.startswith(old)}
        assert kept and all(after[path.replace(old, new, 1)] == kept[path] for path in kept)

    shutil.rmtree(folder / 'trajectory' / '4')
    lost = f'warning: {folder}/trajectory has lost the snapshots of these steps: 4'
    assert lost in commands.run(*arguments)
    assert lost in commands.run('evaluate', *arguments[2:], '--ema=', '--sampler=onestep')
    shutil.rmtree(folder / 'resume' / '12')
    assert lost in commands.run(*arguments).splitlines()[-1]


@pytest.mark.devices
@pytest.mark.slow
def test_two_processes_agree_that_a_step_is_damaged_which_one_of_them_reads(tmp_path):
    """Weights are split over them, and what is damaged is in the part of the second process."""
    folder = tmp_path / 'run'
    arguments = ['train', '--config=tests/helpers/tiny.py:ect', f'--workdir={folder}']
    arguments += ['--config.train.weights=fsdp', '--config.model.channels=16']
    commands.run_together(*arguments)
    whole = open_run(folder).params()
    damage_weights(folder / 'resume' / '12' / 'state' / 'ocdbt.process_1')
    first, second = commands.run_together(*arguments)
    assert f'it is now {folder}/resume/12.damaged1' in first and 'continues at step 8' in first
    assert 'warning' not in second
    chex.assert_trees_all_close(open_run(folder).params(), whole, rtol=1e-5, atol=1e-7)
    assert 'is done: 12 of 12 steps' in commands.run(*arguments)  # by one process, in other parts
