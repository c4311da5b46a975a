"""Two run folders that an earlier version wrote still open, continue, are searched and reported."""

import json
import tarfile

import numpy as np
import pytest

from cm_jax.run import open_run
from tests.helpers import commands
from tests.helpers.paths import FIXTURES

pytestmark = pytest.mark.devices
SEARCH = ['--config=tests/helpers/tiny_search.py', '--config.basis.start=0']


@pytest.fixture
def stored(tmp_path):
    """The folder of the two run folders: `ect`, a training run that was killed, and `lcsc`."""
    with tarfile.open(FIXTURES / 'stored_runs.tar.gz') as archive:
        archive.extractall(tmp_path, filter='data')
    return tmp_path


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def assert_same_scores(found, expected):
    scores = ([row['score'] for row in some] for some in (found, expected))
    np.testing.assert_allclose(*scores, rtol=1e-3)


def test_a_stored_run_opens_and_is_scored_as_it_was(stored):
    run = open_run(stored / 'ect')
    assert run.steps() == [0, 6, 12] and run.emas(6) == run.emas(12) == ['0.9', 'power0.1']
    before = {row['protocol']['ema']: row['fd_lenet'] for row in run.scores()[::2]}
    (stored / 'ect' / 'scores.jsonl').unlink()
    commands.run('evaluate', f'--workdir={run.workdir}', '--sampler=onestep')
    after = {row['protocol']['ema']: row['fd_lenet'] for row in run.scores()}
    assert list(after) == list(before) == ['', '0.9', 'power0.1']
    np.testing.assert_allclose(list(after.values()), list(before.values()), rtol=1e-3)
    assert open_run(stored / 'lcsc').steps() == [12]


def test_a_stored_run_that_was_killed_continues_as_it_went_on_then(stored):
    """It was killed after step 12 was logged, while the newest resume step was 8."""
    expected = {row['step']: row['loss'] for row in rows(stored / 'ect' / 'metrics.jsonl')}
    arguments = ['--config=tests/helpers/tiny.py:ect', f'--workdir={stored}/ect']
    arguments += ['--config.trajectory.emas=True', '--config.trajectory.every=6']
    arguments += ['--config.train.resume_keep=1', '--config.ema_rates=(0.9,)']
    out = commands.run('train', *arguments)
    assert 'continues at step 8' in out
    found = {row['step']: row['loss'] for row in rows(stored / 'ect' / 'metrics.jsonl')}
    assert list(found) == list(expected) == list(range(1, 13))
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-3)
    assert 'is done: 12 of 12 steps' in commands.run('train', *arguments)


def test_a_stored_run_is_searched_with_the_scores_of_then(stored):
    basis = f'--config.basis.workdir={stored}/ect'
    commands.run('search', *SEARCH, f'--workdir={stored}/again', basis)
    for name in ('search.jsonl', 'random.jsonl'):
        assert_same_scores(rows(stored / 'again' / name), rows(stored / 'lcsc' / name))


def test_a_stored_search_goes_on_from_any_of_its_stages(stored):
    """What it had not written when it was killed is removed; the rest is of the earlier version."""
    folder, report = stored / 'lcsc', json.loads((stored / 'lcsc' / 'report.json').read_text())
    settings = json.loads((folder / 'search.json').read_text())
    settings['basis']['workdir'] = f'{stored}/ect'  # the folder has moved
    (folder / 'search.json').write_text(json.dumps(settings))
    arguments = [*SEARCH, f'--workdir={folder}', f'--config.basis.workdir={stored}/ect']
    assert 'is done' in commands.run('search', *arguments)
    for missing in (['report.json'], ['report.json', 'report.jsonl', 'chosen.json']):
        for name in missing:
            (folder / name).unlink()
        commands.run('search', *arguments)
        found = json.loads((folder / 'report.json').read_text())
        assert found['cost'] == report['cost']
        for new, old in zip(found['rows'], report['rows'], strict=True):
            assert new['label'] == old['model']
            np.testing.assert_allclose(new['fd_lenet'], old['fd_lenet'], rtol=1e-3)


def test_stored_runs_are_reported(stored):
    runs = [f'--{name}={stored}/ect' for name in ('teacher', 'ect')]
    commands.run('report', f'--workdir={stored}/report', *runs, f'--lcsc={stored}/lcsc')
    found = json.loads((stored / 'report' / 'results.json').read_text())
    expected = [('teacher', 2), ('teacher', 1), ('ect', 1), ('ema', 1), ('lcsc', 1)]
    expected += [('ect', 2), ('ema', 2), ('lcsc', 2)]
    assert [(row['model'], row['evaluations']) for row in found] == expected
    stored_rows = json.loads((stored / 'lcsc' / 'report.json').read_text())['rows']
    values = {row['fd_lenet'] for row in stored_rows}
    assert {row['fd_lenet'] for row in found if row['model'] != 'teacher'} <= values
    assert (stored / 'report' / 'report.html').stat().st_size > 10_000
