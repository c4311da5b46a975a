"""The study of LCSC: its tables from made-up searches; the script itself on runs of seconds (slow)."""

import json
import os
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import PIL.Image
import pytest
from etils import epath

from cm_jax.errors import UserError
from cm_jax.lcsc.identity import of_earlier_label
from cm_jax.reports import study_lcsc
from tests.helpers.paths import ROOT
from tests.helpers.studies import make_run, score


def make_search(folder, run, models, sampler='onestep'):
    """What a finished search leaves that the study reads; `models` is {model: values}."""
    folder.mkdir(parents=True)
    rows = []
    for name, values in models.items():
        row = score(float(np.mean(values)), sampler, ema=name)
        rows.append(of_earlier_label(name)._asdict() | row | {'values': list(values)})
    report = {'cost': {'search': 3000, 'selection': 1000}, 'rows': rows}
    (folder / 'report.json').write_text(json.dumps(report))
    (folder / 'search.json').write_text(json.dumps({'budget': {'sampler': sampler}}))
    found = {'workdir': str(run), 'steps': [2, 4, 6]}
    (folder / 'coefficients.json').write_text(json.dumps(found))


@pytest.fixture
def folder(tmp_path):
    run, search = tmp_path / 'ect' / 'seed0', tmp_path / 'search'
    make_run(run, [])
    for use in ('cut', 'long', 'more'):
        make_search(search / use / 'seed0', run, {'ema* 0.7': (4.0, 6.0), 'lcsc': (3.0, 5.0)})
    for seed in range(3):
        models = {'last': (9.0, 11.0), 'ema* 0.7': (4.0, 6.0), 'posthoc0.1': (5.0, 7.0)}
        models |= {'random': (4.0, 5.0 + seed), 'lcsc': (3.0 + seed, 5.0 + seed)}
        make_search(search / 'consistency' / f'seed{seed}', run, models)
    make_search(search / 'consistency' / 'seed0.old1', run, {'lcsc': (0.0, 0.0)})
    models = {'ema* 0.8': (2.0, 4.0), 'lcsc': (1.0, 2.0)}
    for n in (9, 15):
        make_search(search / f'diffusion_{n}' / 'seed0', run, models, 'multistep@80,1')
    return tmp_path


def opened(folder, use):
    return study_lcsc.open_searches(epath.Path(folder) / 'search' / use)


def test_spreads_are_over_noise_sets_and_over_search_seeds(folder):
    found = {e['method']: e for e in study_lcsc.entries(opened(folder, 'consistency'))}
    assert list(found) == ['last', 'ema*', 'posthoc', 'random', 'lcsc']
    lcsc, ema = found['lcsc'], found['ema*']
    assert lcsc['values'] == [4.0, 5.0, 6.0] and lcsc['mean'] == 5.0 and lcsc['std_search'] == 1.0
    assert lcsc['std_noise'] == pytest.approx(2**0.5)  # of (3, 5), (4, 6) and (5, 7)
    assert ema['values'] == [5.0] and ema['std_search'] is None and ema['label'] == 'ema* 0.7'
    assert found['random']['std_noise'] == pytest.approx(np.sqrt((0.5 + 2 + 4.5) / 3))
    assert study_lcsc.mean_and_spreads(lcsc) == '5.00 ± 1.41 ± 1.00'
    assert study_lcsc.mean_and_spreads(ema) == '5.00 ± 1.41'


def test_the_table_of_a_run_counts_the_searches_that_won(folder):
    text = study_lcsc.comparison('A model', opened(folder, 'consistency'))
    assert '| ema* 0.7 | 1 | 5.00 ± 1.41 |' in text
    assert '3 snapshots, 3 search seeds. LCSC is at or below EMA* in 2 of 3 searches.' in text


def test_costs_count_training_and_search_in_network_evaluations(folder):
    cut = opened(folder, 'cut')
    assert cut.training_cost() == 12 * 16 * 4 and cut.search_cost() == 4000
    rows = [
        study_lcsc.cost_row('EMA*', cut, 'ema*', 9_000_000),
        study_lcsc.cost_row('LCSC', cut, 'lcsc'),
    ]
    assert rows == [['EMA*', '5.00 ± 1.41', 9.001, 0], ['LCSC', '4.00 ± 1.41', 0.001, 0.004]]
    assert '| LCSC | 4.00 ± 1.41 | 0.001 | 0.004 | 1800.20 |' in study_lcsc.costs('Cost', rows)


def test_all_tables_and_the_curve(folder):
    uses = {use: opened(folder, use) for use in study_lcsc.USES}
    diffusion = {n: opened(folder, f'diffusion_{n}') for n in (9, 15)}
    text = study_lcsc.tables(uses, diffusion)
    assert text.count('### ') == 4 and '| 2 | 3.00 ± 1.41 | 1.50 ± 0.71 |' in text
    assert 'LCSC at 9 evaluations: 1.50 ± 0.71; EMA* at 15: 3.00 ± 1.41.' in text
    points = study_lcsc.points(diffusion)
    assert [(p['method'], p['mean']) for p in points] == 2 * [('ema*', 3.0)] + 2 * [('lcsc', 1.5)]


def test_what_is_missing_is_named(folder):
    with pytest.raises(UserError, match=r'nothing holds no seed<k> searches: bash launch/study.sh'):
        opened(folder, 'nothing')
    with pytest.raises(UserError, match='a report has no posthoc with onestep; it has: ema'):
        study_lcsc.entry(opened(folder, 'cut'), 'posthoc')
    (folder / 'search' / 'cut' / 'seed0' / 'report.json').unlink()
    with pytest.raises(UserError, match=r'seed0 has no report.json: its search is not finished'):
        opened(folder, 'cut')


SHRUNK = """

def get_config(full=get_config):
    c = full()
{changes}
    return c
"""
RUN = """
c.batch_size = 16
c.model.update({'channels': 4, 'channel_mult': (1,)})
c.sampling.update({'count': 10, 'every': 1000})
c.evaluation.update({'samples': 40, 'batch_size': 20})
"""
SEARCH = """
c.basis.start = 1
c.search.population = 3
c.budget.update({'generations': 1, 'samples': 40, 'batch_size': 20, 'finalists': 2})
c.controls.landscape = 3
c.evaluation.update({'samples': 40, 'batch_size': 20})
"""
CHANGES = {  # at the end of each config that the script names
    'digits_edm': RUN + 'c.steps = 100',
    'digits_ect': RUN + 'c.steps = 20\nc.trajectory.every = 2',
    'digits_ect_lcsc': SEARCH,
    'digits_edm_lcsc': SEARCH,
}


@pytest.mark.slow
@pytest.mark.devices
def test_the_script_trains_searches_and_writes_its_tables(tmp_path):
    """In a copy of the repository whose configs are of seconds and whose environment is this one."""
    for name in ('cm_jax', 'configs', 'launch', 'tests', 'setup.py', 'README.md'):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    for name, changes in CHANGES.items():
        with (tmp_path / 'configs' / f'{name}.py').open('a') as file:
            file.write(SHRUNK.format(changes=textwrap.indent(changes, '    ')))
    python = tmp_path / '.venv' / 'bin' / 'python'
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (tmp_path / '.venv' / '.installed').touch()
    environment = os.environ | {'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(tmp_path)}
    command = ['bash', 'launch/study.sh', 'lcsc', '1']
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1800
    )
    assert done.returncode == 0, done.stderr[-3000:]
    folder = tmp_path / 'runs' / 'study' / 'lcsc'
    text = (folder / 'study.md').read_text()
    assert text in done.stdout and text.count('### ') == 4
    assert [line.split(' | ')[0] for line in text.splitlines()][-7:-2] == [
        f'| {n}' for n in (5, 7, 9, 12, 15)
    ]
    assert np.asarray(PIL.Image.open(folder / 'study.png')).std() > 0
