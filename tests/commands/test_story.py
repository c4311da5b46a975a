"""The whole story as commands, on a run of seconds: teacher, ECT, LCSC, scores, report."""

import json
import pathlib
import re
import shutil

import numpy as np
import PIL.Image
import pytest

from cm_jax import data
from cm_jax.errors import UserError
from cm_jax.metrics import named
from cm_jax.run import open_run
from tests.helpers import commands
from tests.helpers.run_folders import unchecked

pytestmark = pytest.mark.devices
SECOND = ('fd_lenet_fashion_mnist', 'fd_pixel')  # beside the score, fd_lenet


@pytest.fixture(scope='module')
def tuned(story):
    """The output of tune_levels on the run ect."""
    arguments = ['--levels=2', '--budget=4', '--ema=0.9', '--step=12']
    return commands.run('tune_levels', f'--workdir={story}/ect', *arguments)


def test_metrics_beside_the_distance_are_stored_and_found_again(story, tmp_path):
    shutil.copytree(story / 'ect', tmp_path / 'ect')
    arguments = [f'--workdir={tmp_path}/ect', '--ema=0.9', '--sampler=onestep']
    arguments.append('--metrics=fd_lenet,kd_lenet,is_lenet,pr_lenet')
    out = commands.run('evaluate', *arguments)
    assert 'kd_lenet' in out and 'precision_lenet' in out and 'stored)' not in out
    (line,) = [line for line in out.splitlines() if ' evaluations ' in line]
    assert line.count(' ± ') == 9 and '+-' not in line and 'rank' not in line
    assert f'stored in {tmp_path}/ect/scores.jsonl' in out
    best = '--step=12 --ema=0.9 --sampler=onestep'
    assert f'next: python -m cm_jax.sample --workdir={tmp_path}/ect {best}\n' in out
    assert 'stored)' in commands.run('evaluate', *arguments)
    rows = open_run(tmp_path / 'ect').scores()
    row = rows.pop()
    (plain,) = [r for r in rows if r['protocol'] == row['protocol']]
    assert plain['values'] == row['values'] and plain['fd_lenet'] == row['fd_lenet']
    names = ['kd_lenet', 'is_lenet', *(f'{part}_lenet' for part in named.PARTS)]
    assert all(row[f'{name}_std'] >= 0 for name in names) and not row.keys() & {'fid', 'kid'}
    assert row['kd_lenet'] > 0 and 1 <= row['is_lenet'] <= 10 and 0 <= row['recall_lenet'] <= 1
    assert row['settings']['kd_lenet']['size'] == 40


def test_inception_needs_the_file_of_its_weights(story, tmp_path):
    arguments = [f'--workdir={story}/ect', '--config=tests/helpers/tiny.py:ect', '--ema=']
    weights = f'--config.evaluation.weights={tmp_path}/none.pth'
    line = commands.error('evaluate', *arguments, weights)
    assert "the extractor is 'lenet_digits'" in line
    inception = '--config.evaluation.extractor=inception'
    line = commands.error('evaluate', *arguments, weights, inception, '--metrics=fid')
    assert line == f'error: no weights file {tmp_path}/none.pth'


def test_the_report_repeats_to_the_digit_in_evaluate(story):
    rows = json.loads((story / 'lcsc' / 'report.json').read_text())['rows']
    reported = {(r['label'], r['protocol']['sampler']): r['fd_lenet'] for r in rows}
    commands.run('evaluate', f'--workdir={story}/lcsc', '--ema=')
    for row in open_run(story / 'lcsc').scores():
        np.testing.assert_allclose(
            row['fd_lenet'], reported['lcsc', row['protocol']['sampler']], rtol=1e-5
        )
    for row in open_run(story / 'ect').scores():
        protocol = row['protocol']
        label = f'ema {protocol["ema"]}' if protocol['ema'] else 'last'
        np.testing.assert_allclose(row['fd_lenet'], reported[label, protocol['sampler']], rtol=1e-5)


def test_evaluate_takes_the_evaluation_of_any_config_and_sample_needs_a_section_of_its_own(story):
    """A search's config has an evaluation, here that of the run itself, and no sampling."""
    search = '--config=tests/helpers/tiny_search.py'
    out = commands.run('evaluate', f'--workdir={story}/ect', search)
    assert out.count('stored)') == out.count('evaluations')
    line = commands.error('sample', f'--workdir={story}/ect', search)
    assert "unknown section in config 'sampling'" in line and 'evaluation' in line


def test_evaluate_does_not_score_twice(story):
    before = (story / 'ect' / 'scores.jsonl').read_text()
    assert 'stored' in commands.run('evaluate', f'--workdir={story}/ect')
    assert (story / 'ect' / 'scores.jsonl').read_text() == before


def test_tuned_levels_are_the_best_of_those_that_were_tried(story, tuned):
    run = open_run(story / 'ect')
    (record,) = run.tuned()
    scores = [one['score'] for one in record['tries']]
    assert len(scores) == 4 and record['score'] == min(scores)
    assert record['sampler'] == record['tries'][np.argmin(scores)]['sampler']
    assert record['protocol']['sampler'] == record['sampler']
    assert record['protocol']['seeds'] == [100] and record['protocol']['samples'] == 40
    assert f'--sampler={record["sampler"]}' in tuned
    assert run.sampler_spec('tuned', 12, '0.9') == record['sampler']
    assert run.sampler_spec('tuned@2', 12, '0.9') == record['sampler']
    assert run.sampler_spec('heun@18', 12, '0.9') == 'heun@18'
    for spec, step, ema, words in (
        ('tuned', 12, '', r"python -m cm_jax.tune_levels .* --step=12 --ema=''"),
        ('tuned', 10, '0.9', '--step=10'),
        ('tuned@3', 12, '0.9', "unknown sampler 'tuned@3'.*legal: tuned@2"),
    ):
        with pytest.raises(UserError, match=words):
            run.sampler_spec(spec, step, ema)


def test_sample_writes_a_picture_and_where_it_came_from(story, tuned):
    out = commands.run(
        'sample',
        f'--workdir={story}/ect',
        '--sampler=tuned',
        '--npz',
        '--ema=0.9',
        '--step=12',
        '--count=7',
        '--seed=3',
    )
    path = pathlib.Path(re.search(r'\S+\.png', out)[0])
    record = json.loads(path.with_suffix('.json').read_text())
    assert record['step'] == 12 and record['ema'] == '0.9' and record['seed'] == 3
    assert record['sampler'] == open_run(story / 'ect').tuned()[-1]['sampler']
    images = np.load(path.with_suffix('.npz'))['images']
    assert images.shape == (7, 8, 8, 1) and images.dtype == np.uint8


def test_edit_draws_the_originals_what_is_known_and_results_that_agree_with_it(story):
    arguments = ['--task=superres', '--factor=4', '--levels=80,5,1,0.2', '--count=3']
    out = commands.run('edit', f'--workdir={story}/ect', *arguments)
    path = pathlib.Path(re.search(r'\S+\.png', out)[0])
    record = json.loads(path.with_suffix('.json').read_text())
    assert record['split'] == 'test' and record['indices'] == [0, 99, 198]
    assert record['factor'] == 4 and record['mask'] is None
    np.testing.assert_allclose(record['levels'], [80, 5, 1, 0.2])
    picture = np.asarray(PIL.Image.open(path), int)[::6, ::6]  # 6 by 6 for each pixel
    assert picture.shape == (4 * 9 - 1, 3 * 9 - 1)
    cells = np.pad(picture, (0, 1)).reshape(4, 9, 3, 9)[:, :8, :, :8].swapaxes(1, 2)
    originals, known, one, other = cells  # rows of three images
    source = data.open_source('digits', 'test')
    np.testing.assert_array_equal(originals, source.get(np.array(record['indices']))[0][..., 0])
    means = originals.reshape(3, 2, 4, 2, 4).mean((2, 4))
    np.testing.assert_allclose(known, means.repeat(4, 1).repeat(4, 2), atol=1)
    assert (one != other).any() and (one != known).any()


def test_a_study_compares_runs_that_sample_without_an_average(story, tmp_path):
    """The scores are those that `evaluate` wrote."""
    for method, run in (('edm', 'teacher'), ('ect', 'ect')):
        shutil.copytree(story / run, tmp_path / method / 'seed0')
        config = json.loads((tmp_path / method / 'seed0' / 'config.json').read_text())
        config['sampling']['ema'] = ''
        (tmp_path / method / 'seed0' / 'config.json').write_text(json.dumps(unchecked(config)))
    commands.run('study', f'--workdir={tmp_path}', '--order=ect')
    rows = json.loads((tmp_path / 'study.json').read_text())
    assert {(row['method'], row['sampler']) for row in rows} == {
        ('ect', 'onestep'),
        ('ect', 'multistep@80,1'),
        ('edm', 'onestep'),
        ('edm', 'heun@3'),
    }
    assert {row['ema'] for row in rows} == {''}
    (row,) = [r for r in rows if (r['method'], r['sampler']) == ('ect', 'onestep')]
    (stored,) = [
        r['fd_lenet']
        for r in open_run(story / 'ect').scores()
        if (r['protocol']['ema'], r['protocol']['sampler']) == ('', 'onestep')
    ]
    assert row['values'] == [stored]


@pytest.mark.parametrize('kind', ['window', 'bema'])
def test_a_report_samples_from_the_baseline_that_is_the_best_average(story, tmp_path, kind):
    """Its score is made the lowest, so that the report needs its weights."""
    shutil.copytree(story / 'lcsc', tmp_path / 'lcsc')
    path = tmp_path / 'lcsc' / 'report.json'
    report = json.loads(path.read_text())
    for row in report['rows']:
        row['fd_lenet'] -= 1000 * (row['kind'] == kind)
    path.write_text(json.dumps(unchecked(report)))
    folders = [f'--{name}={story}/{name}' for name in ('teacher', 'ect')]
    out = commands.run('report', f'--workdir={tmp_path}', *folders)
    assert f'Best average, {kind} ' in out


def test_the_report_has_the_rows_that_were_asked_for(story):
    commands.run('report', f'--workdir={story}')
    rows = json.loads((story / 'results.json').read_text())
    assert {row['model'] for row in rows} == {'teacher', 'ect', 'ema', 'lcsc'}
    assert {row['search'] for row in rows} == {None, 'evolution'}
    names = ['fd_lenet', *SECOND, 'precision_lenet_fashion_mnist', 'recall_lenet_fashion_mnist']
    keys = {'model', 'search', 'searched', 'steps', 'evaluations', 'samples', 'seeds', 'flag'}
    for row in rows:
        assert set(row) == {*keys, *names, *(f'{name}_std' for name in names)}
        assert all(row[name] > 0 for name in ('fd_lenet', *SECOND))  # the teacher's, too
    assert (story / 'report.html').stat().st_size > 10_000


def test_a_report_takes_the_search_down_the_derivative_beside_the_other(story, tmp_path):
    for name in ('teacher', 'ect', 'lcsc'):
        (tmp_path / name).symlink_to(story / name)
    gradient = ['--config.search.method=gradient', '--config.controls.random=False']
    gradient += ['--config.budget.metric=fd_lenet+fd_pixel', '--config.budget.units=relative']
    arguments = [f'--workdir={tmp_path}/lcsc_gradient', f'--config.basis.workdir={story}/ect']
    config = '--config=tests/helpers/tiny_search.py'
    out = commands.run('search', config, *arguments, *gradient, '--config.controls.posthoc=()')
    last = next(line for line in out.split('\n') if line.startswith('lcsc '))
    assert last.count('*') == 2 and 'fd_pixel ' in last and last.endswith('*')
    assert 'minimises  fd_lenet+fd_pixel, by onestep; lower is better\n' in out
    assert 'method     gradient: 2 steps, from 10 averages\n' in out and '40 images a step' in out
    assert '\n  ema*     the best of several EMAs' in out and '+-' not in out
    assert f'next: python -m cm_jax.sample --workdir={tmp_path}/lcsc_gradient\n' in out
    report = json.loads((tmp_path / 'lcsc_gradient' / 'report.json').read_text())
    assert report['searched'] == ['fd_lenet', 'fd_pixel'] and report['second'] == [SECOND[0]]
    out = commands.run('report', f'--workdir={tmp_path}')
    rows = json.loads((tmp_path / 'results.json').read_text())
    assert [row['search'] for row in rows[-2:]] == ['evolution', 'gradient']
    assert [row['searched'] for row in rows[-2:]] == [['fd_lenet'], ['fd_lenet', 'fd_pixel']]
    assert 'LCSC (gradient) searched in fd_lenet and fd_pixel, and did not use' in out
    page = (tmp_path / 'report.html').read_text()
    assert page.count('<svg') == 8 and 'LCSC (gradient): progress of the search' in page
    width = np.asarray(PIL.Image.open(tmp_path / 'results.png')).shape[1]
    assert width > 6 * 172  # a panel each: the teacher twice, ECT, an average, LCSC twice
    twice = [f'--lcsc={tmp_path}/lcsc'] * 2
    assert 'twice' in commands.error('report', f'--workdir={tmp_path}', *twice)
