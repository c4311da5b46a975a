"""The study's table: which runs, which of their scores, and what it refuses. On made-up run folders."""

import json

import numpy as np
import PIL.Image
import pytest
from etils import epath

from cm_jax.errors import UserError
from cm_jax.reports import study_methods, study_page
from tests.helpers import commands
from tests.helpers.studies import make_run, score


@pytest.fixture
def folder(tmp_path):
    """Two methods of two seeds, scored with two samplers, and what does not belong to them."""
    for seed, value in enumerate((4.0, 6.0)):
        others = [score(99.0, step=10), score(98.0, ema='0.9')]
        two = score(value / 4, 'multistep@80,1')
        make_run(tmp_path / 'ect' / f'seed{seed}', [*others, two, score(value)], seed)
        make_run(tmp_path / 'ct' / f'seed{seed}', [score(2 * value), two], seed)
    make_run(tmp_path / 'ect' / 'seed0.old1', [score(1000.0)])
    make_run(tmp_path / 'other' / 'run', [score(1000.0)])
    return tmp_path


def test_rows_are_means_over_seeds_of_the_last_step_and_its_own_average(folder):
    runs = study_methods.runs_of(folder)
    assert {method: len(of) for method, of in runs.items()} == {'ct': 2, 'ect': 2}
    one, two = study_methods.rows_of('ect', runs['ect'])
    assert (one['sampler'], one['evaluations'], one['values']) == ('onestep', 1, [4.0, 6.0])
    assert one['mean'] == 5 and one['std'] == pytest.approx(2**0.5)
    assert one['training_seeds'] == [0, 1] and one['images_of_this_run'] == 12 * 16
    assert (two['evaluations'], two['values']) == (2, [1.0, 1.5])


def test_a_single_seed_has_no_spread(folder):
    (one, _) = study_methods.rows_of('ect', study_methods.runs_of(folder)['ect'][:1])
    assert one['std'] is None and '| 4.00 |' in study_methods.table([one])


def test_a_sampler_that_a_seed_lacks_is_left_out(folder):
    (folder / 'ct' / 'seed1' / 'scores.jsonl').write_text(json.dumps(score(3.0)) + '\n')
    rows = study_methods.rows_of('ct', study_methods.runs_of(folder)['ct'])
    assert [row['sampler'] for row in rows] == ['onestep']


def test_a_run_that_samples_without_an_average_is_judged_by_its_weights(tmp_path):
    make_run(tmp_path / 'ect' / 'seed0', [score(5.0, ema='0.5'), score(7.0, ema='')], ema='')
    (row,) = study_methods.rows_of('ect', study_methods.runs_of(tmp_path)['ect'])
    assert row['values'] == [7.0] and row['ema'] == ''


def test_missing_runs_and_scores_are_named(tmp_path):
    with pytest.raises(UserError, match='holds no <method>/seed<k> run folders'):
        study_methods.runs_of(tmp_path)
    make_run(tmp_path / 'ect' / 'seed0', [score(4.0, step=10)])
    with pytest.raises(
        UserError, match=r'no scores of its last step: .*evaluate --workdir=.*seed0'
    ):
        study_methods.rows_of('ect', study_methods.runs_of(tmp_path)['ect'])


def test_scores_of_another_protocol_are_not_compared(folder):
    rows = [
        row
        for m, runs in study_methods.runs_of(folder).items()
        for row in study_methods.rows_of(m, runs)
    ]
    study_methods.check_comparable(rows)
    rows[-1]['protocol'] |= {'samples': 40}
    with pytest.raises(UserError, match='ect and ct were not scored alike: samples is 40 and 5000'):
        study_methods.check_comparable(rows)


def test_the_command_writes_table_rows_and_plot_in_the_order_asked_for(folder):
    out = commands.run('study', f'--workdir={folder}', '--order=ect')
    rows = json.loads((folder / 'study.json').read_text())
    assert [row['method'] for row in rows] == ['ect', 'ect', 'ct', 'ct']
    table = (folder / 'study.md').read_text()
    assert table in out and '| ect | `onestep` | 1 | 5.00 ± 1.41 |' in table
    assert np.asarray(PIL.Image.open(folder / 'study.png')).std() > 0
    page = study_page.render(epath.Path(folder))
    assert page.count('<svg ') == 1 and '<td class="n">5.00 ± 1.41</td>' in page
    assert page.count('step 12 of 12') == 4 and 'seed0.old1' not in page


def test_the_page_of_a_study_without_tables_says_what_makes_them(folder):
    (folder / 'ct' / 'seed1' / 'data_card.json').unlink()
    assert study_page.is_study(epath.Path(folder))
    page = study_page.render(epath.Path(folder))
    assert f'python -m cm_jax.study --workdir={folder}<' in page
    assert 'its training did not start' in page and page.count('step 12 of 12') == 3
    assert not study_page.is_study(epath.Path(folder) / 'ect')


@pytest.mark.slow
def test_a_method_that_is_not_there_cannot_be_ordered(folder):
    line = commands.error('study', f'--workdir={folder}', '--order=cd')
    assert line == f'error: {folder} has no cd; there are: ct, ect'
