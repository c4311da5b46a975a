"""Training as a command: resuming, killing, devices, starting from another run."""

import json
import pathlib
import resource
import shutil
import signal
import time

import chex
import jax
import numpy as np
import pytest

from cm_jax import checkpoint
from cm_jax.evaluation.scores import Scorer
from cm_jax.run import open_run
from cm_jax.sharding import make_mesh
from cm_jax.wiring import open_reference
from tests.helpers import commands

pytestmark = pytest.mark.devices
TINY = '--config=tests/helpers/tiny.py:ect'


def workdir(path: pathlib.Path) -> str:
    return f'--workdir={path}'


def losses(folder: pathlib.Path) -> list[float]:
    return [row['loss'] for row in open_run(folder).metrics()]


def weights(folder: pathlib.Path) -> dict:
    """Every item of every step of a trajectory."""
    run = open_run(folder)
    found = {}
    for step in run.steps():
        for item in ['', *run.emas(step)]:
            found[f'{step}/{item}'] = run.params(step, item)
    return found


@pytest.fixture(scope='module')
def whole(tmp_path_factory) -> pathlib.Path:
    """A run that nobody interrupted."""
    folder = tmp_path_factory.mktemp('train') / 'whole'
    commands.run('train', TINY, workdir(folder))
    return folder


def scores(folder: pathlib.Path) -> dict[int, float]:
    """The score of each step that has one, in metrics.jsonl."""
    rows = open_run(folder).metrics()
    return {row['step']: row['fd_lenet_40'] for row in rows if 'fd_lenet_40' in row}


def wait_for_step(folder: pathlib.Path, step: int, process) -> None:
    path = folder / 'metrics.jsonl'
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        if path.exists() and f'"step": {step}' in path.read_text():
            return
        time.sleep(0.005)
    raise AssertionError(f'step {step} did not come: {process.communicate()[1][-2000:]}')


@pytest.mark.parametrize('step', [pytest.param(1, marks=pytest.mark.slow), 9])
def test_a_killed_run_continues_to_the_same_bits(whole, tmp_path, step):
    folder = tmp_path / 'killed'
    process = commands.start('train', TINY, workdir(folder))
    wait_for_step(folder, step, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    commands.run('train', TINY, workdir(folder))
    assert losses(folder) == losses(whole)
    chex.assert_trees_all_equal(weights(folder), weights(whole))


def test_a_killed_run_is_scored_as_its_weights_are_and_trains_to_the_same_bits(whole, tmp_path):
    """Scores of steps that are neither logged nor pictured otherwise, before and after the kill."""
    folder = tmp_path / 'scored'
    settings = ['--config.train.evaluate_every=5', '--config.train.evaluate_samples=40']
    settings += ['--config.train.log_every=3', '--config.sampling.ema=0.9']
    settings += ['--config.trajectory.every=5', '--config.trajectory.emas=True']
    process = commands.start('train', TINY, workdir(folder), *settings)
    wait_for_step(folder, 9, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    out = commands.run('train', TINY, workdir(folder), *settings)
    assert 'fd_lenet_40 every 5 steps: 40 samples by onestep, ema 0.9' in out
    assert 'continues at step ' in out
    run = open_run(folder)
    assert [row['step'] for row in run.metrics()] == [3, 5, 6, 9, 10, 12]
    space = open_reference(run.settings.dataset, run.settings.evaluation)
    scorer = Scorer(run.parts.generative_model, [space], 20, make_mesh())
    expected = {
        step: scorer.score(run.params(step, '0.9'), 'onestep', 40, (0,), ema='0.9', step=step)
        for step in (5, 10, 12)
    }
    found = scores(folder)
    assert list(found) == list(expected)
    np.testing.assert_allclose(
        list(found.values()), [row['fd_lenet'] for row in expected.values()], rtol=1e-5
    )
    for step in (10, 12):
        chex.assert_trees_all_equal(run.params(step), open_run(whole).params(step))


@pytest.mark.slow
def test_a_terminated_run_saves_and_continues(whole, tmp_path):
    folder = tmp_path / 'terminated'
    process = commands.start('train', TINY, workdir(folder))
    wait_for_step(folder, 5, process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert 'the same command continues' in err
    assert checkpoint.list_steps(folder / 'resume')[-1] >= 5
    commands.run('train', TINY, workdir(folder))
    chex.assert_trees_all_equal(weights(folder), weights(whole))


def test_the_last_snapshot_has_the_averages_and_every_step_its_learning_rate(whole):
    run = open_run(whole)
    assert run.emas(10) == [] and run.emas(12) == ['0.5', '0.9', 'power0.1']
    raw, average = run.params(12), run.params(12, 'power0.1')
    assert any(np.any(a != b) for a, b in zip(jax.tree.leaves(raw), jax.tree.leaves(average)))
    rates = [row['learning_rate'] for row in run.metrics()]
    np.testing.assert_allclose(rates, run.config.optimizer.learning_rate, rtol=1e-6)


def test_a_finished_run_says_so_and_changes_nothing(whole):
    before = {p: p.stat().st_mtime_ns for p in whole.rglob('*') if p.is_file()}
    assert 'is done: 12 of 12 steps' in commands.run('train', TINY, workdir(whole))
    assert {p: p.stat().st_mtime_ns for p in whole.rglob('*') if p.is_file()} == before


@pytest.mark.slow
def test_a_snapshot_holds_the_weights_of_its_step(whole, tmp_path):
    """The snapshot of step 6, written in the background while training went on, is what a run of
    six steps ends with."""
    folder = tmp_path / 'short'
    commands.run('train', TINY, workdir(folder), '--config.steps=6')
    short, full = open_run(folder), open_run(whole)
    chex.assert_trees_all_equal(short.params(6), full.params(6))
    assert short.steps() == [0, 2, 4, 6] and full.steps() == [0, 2, 4, 6, 8, 10, 12]


@pytest.mark.slow
def test_the_averages_are_those_of_the_trajectory(whole, tmp_path):
    folder = tmp_path / 'every'
    commands.run('train', TINY, workdir(folder), '--config.trajectory.every=1')
    run = open_run(folder)
    average = run.params(0)
    for step in run.steps()[1:]:
        average = jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, average, run.params(step))
    chex.assert_trees_all_close(average, run.params(ema='0.9'), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    'extra', [[], pytest.param(['--config.train.weights=fsdp'], marks=pytest.mark.slow)]
)
def test_four_devices_give_the_losses_of_one_and_open_on_one(whole, tmp_path, extra):
    folder = tmp_path / 'four'
    arguments = [TINY, workdir(folder), *extra]
    process = commands.start('train', *arguments, devices=4)
    wait_for_step(folder, 6, process)
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=60)
    commands.run('train', *arguments, devices=1)
    np.testing.assert_allclose(losses(folder), losses(whole), rtol=1e-4)
    chex.assert_trees_all_close(
        open_run(folder).params(), open_run(whole).params(), rtol=1e-3, atol=1e-4
    )


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one(whole, tmp_path):
    folder = tmp_path / 'two'
    scored = ['--config.train.evaluate_every=6', '--config.train.evaluate_samples=40']
    commands.run_together('train', TINY, workdir(folder), *scored)
    np.testing.assert_allclose(losses(folder), losses(whole), rtol=1e-4)
    run = open_run(folder)
    space = open_reference(run.settings.dataset, run.settings.evaluation)
    scorer = Scorer(run.parts.generative_model, [space], 20, make_mesh())
    found = scores(folder)
    assert list(found) == [6, 12]
    for step, value in found.items():
        row = scorer.score(run.params(step), 'onestep', 40, (0,), ema='', step=step)
        np.testing.assert_allclose(value, row['fd_lenet'], rtol=1e-4)


@pytest.mark.slow
def test_accumulation_keeps_the_global_batch_and_bfloat16_trains(whole, tmp_path):
    folder = tmp_path / 'accumulated'
    settings = ['--config.train.accumulate=4', '--config.model.dtype=bfloat16']
    commands.run('train', TINY, workdir(folder), *settings)
    run = open_run(folder)
    assert [row['images'] for row in run.metrics()] == [16 * step for step in range(1, 13)]
    assert np.isfinite(losses(folder)).all()
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(run.params()))


def test_a_run_starts_from_the_weights_of_another(whole, tmp_path):
    folder = tmp_path / 'tuned'
    settings = [f'--config.init_from.workdir={whole}', '--config.init_from.step=6']
    commands.run('train', TINY, workdir(folder), *settings, '--config.steps=1')
    chex.assert_trees_all_equal(open_run(folder).params(0), open_run(whole).params(6))


def test_weights_that_do_not_fit_are_refused_by_name(whole, tmp_path):
    """All that may not fit is in tests/training/test_transfer.py."""
    folder, origin = tmp_path / 'refused', f'--config.init_from.workdir={whole}'
    line = commands.error('train', TINY, workdir(folder), origin, '--config.model.channels=8')
    assert 'model.channels: 4 there, 8 here' in line, line
    line = commands.error('train', TINY, workdir(folder), origin, '--config.init_from.step=5')
    assert 'no step 5' in line and '0, 2, 4' in line, line
    assert not folder.exists()


@pytest.mark.slow
def test_a_student_learns_from_a_frozen_teacher(whole, tmp_path):
    """CD, from a run that is teacher and start; its folder needs the teacher no more."""
    folder, teacher = tmp_path / 'cd', f'--config.teacher.workdir={whole}'
    line = commands.error('train', '--config=tests/helpers/tiny.py:cd', workdir(folder))
    assert "objective 'cd' learns from a teacher: set config.teacher.workdir" in line
    line = commands.error(
        'train',
        '--config=tests/helpers/tiny.py:cd',
        workdir(folder),
        teacher,
        '--config.process.t_max=40',
    )
    assert 'process.t_max: 80.0 there, 40.0 here' in line
    assert not folder.exists()
    commands.run(
        'train',
        '--config=tests/helpers/tiny.py:cd',
        workdir(folder),
        teacher,
        f'--config.init_from.workdir={whole}',
    )
    run = open_run(folder)
    chex.assert_trees_all_equal(run.params(0), open_run(whole).params())
    assert np.all(np.isfinite(losses(folder))) and max(losses(folder)) > 0
    assert run.sample(run.params(), 'onestep', 2).shape == (2, 8, 8, 1)


def test_a_folder_of_another_run_is_refused_unless_started_afresh(whole, tmp_path):
    folder = tmp_path / 'taken'
    shutil.copytree(whole, folder)
    settings = [TINY, workdir(folder), '--config.steps=3', '--config.seed=7']
    line = commands.error('train', *settings)
    assert 'seed: 0 there, 7 here' in line and 'steps: 12 there, 3 here' in line
    assert open_run(folder).steps() == open_run(whole).steps()
    commands.run('train', *settings, '--fresh')
    assert open_run(folder).steps()[-1] == 3
    assert open_run(tmp_path / 'taken.old1').steps() == open_run(whole).steps()


def test_steps_that_are_not_finite_stop_the_run_with_the_reason(tmp_path):
    folder = tmp_path / 'diverged'
    settings = ['--config.optimizer.learning_rate=1e30', '--config.train.stop_after_skipped=3']
    line = commands.error('train', TINY, workdir(folder), *settings)
    assert '3 steps in a row were not finite' in line and 'learning_rate' in line
    rows = [json.loads(row) for row in (folder / 'skipped.jsonl').read_text().splitlines()]
    assert len(rows) == 3 and all(row['t_bad'] > 0 for row in rows)


def limit_files(size: int):
    """Before a command starts: no file may grow over `size` bytes, as on a disk that is full."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.slow
def test_a_full_disk_stops_the_run_and_leaves_it_resumable(whole, tmp_path):
    folder = tmp_path / 'full'
    process = commands.start('train', TINY, workdir(folder))
    wait_for_step(folder, 6, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process = commands.start('train', TINY, workdir(folder), preexec_fn=limit_files(20_000))
    _, err = process.communicate(timeout=300)
    line = commands.refusal(process.returncode, err)
    assert 'disk is full' in line and 'same command again' in line, line
    commands.run('train', TINY, workdir(folder))
    chex.assert_trees_all_equal(weights(folder), weights(whole))
