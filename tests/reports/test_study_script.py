"""The script of the study of LCSC: its methods cost as much; and the whole of it on runs of seconds."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import PIL.Image
import pytest
from absl import flags
from ml_collections import config_flags

from cm_jax.lcsc import job
from cm_jax.lcsc.session import cost
from cm_jax.reports.study_searches import METHODS, USES
from configs.digits_ect import get_config as ect_config
from tests.helpers.paths import ROOT
from tests.helpers.tiny import search_settings_of
from tests.helpers.trained import trained

SHRUNK = """

def get_config(*variant, full=get_config):
    c = full(*variant)
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
c.search.population = 4  # the least of CMA-ES
c.budget.update({'generations': 2, 'samples': 40, 'batch_size': 20, 'finalists': 2})
if c.search.method == 'gradient':
    c.gradient.batch_size = 40
c.evaluation.update({'samples': 40, 'batch_size': 20})
"""
CHANGES = {  # at the end of each config that the script names
    'digits_edm': RUN + 'c.steps = 100',
    'digits_ect': RUN + 'c.steps = 20\nc.trajectory.every = 2',
    'digits_ect_lcsc': SEARCH,
    'digits_edm_lcsc': SEARCH,
}


def commands(folder):
    """The arguments of every command that the script starts; nothing runs."""
    shutil.copytree(ROOT / 'launch', folder / 'launch')
    (folder / 'setup.py').touch()
    write = "import json, sys; open('commands', 'a').write(json.dumps(sys.argv[1:]) + '\\n')"
    environment_of(folder, f'exec {sys.executable} -c "{write}; print(2)" "$@"')
    subprocess.run(['bash', 'launch/study.sh', 'lcsc'], cwd=folder, check=True, capture_output=True)
    return [json.loads(line) for line in (folder / 'commands').read_text().splitlines()]


def environment_of(folder, python):
    """An environment of the script's whose Python is this line of the shell."""
    path = folder / '.venv' / 'bin' / 'python'
    path.parent.mkdir(parents=True)
    path.write_text(f'#!/bin/sh\n{python}\n')
    path.chmod(0o755)
    (folder / '.venv' / '.installed').touch()


def parsed(arguments):
    """The folder and the settings of a search, from the arguments of its command."""
    values, argv = flags.FlagValues(), ['search', *arguments]
    config_flags.DEFINE_config_file('config', None, flag_values=values, sys_argv=argv)
    flags.DEFINE_string('workdir', None, '', flag_values=values)
    values(argv)
    return pathlib.Path(values.workdir), search_settings_of(values.config)


def test_the_methods_of_a_use_cost_as_much(tmp_path, monkeypatch):
    searches = [a[2:] for a in commands(tmp_path) if a[:2] == ['-m', 'cm_jax.search']]
    monkeypatch.chdir(ROOT)
    run = trained(ect_config(), (8, 8, 1), 10, sigma_rels=(0.05, 0.1))
    monkeypatch.setattr(job, 'open_run', lambda workdir: run)
    costs, noise = {}, {}
    for arguments in searches:
        folder, settings = parsed(arguments)
        use, method, seed = folder.parts[-3:]
        opened = job.open_job(settings)
        costs.setdefault(use, {}).setdefault(method, []).append(cost(opened))
        noise.setdefault((use, seed), set()).add((settings.seed, settings.budget.seed))
        is_first = (method, seed) == ('evolution', 'seed0')
        assert is_first or settings.controls.reported == ('lcsc',)
        assert 'random' not in opened.states and not settings.controls.landscape
    assert {use: set(of_use) for use, of_use in costs.items()} == {
        use: set(methods) for use, methods in USES.items()
    }
    for use, of_use in costs.items():
        found = [each['search'] for of_method in of_use.values() for each in of_method]
        assert max(found) <= 1.05 * min(found), (use, found)
        seeds = {len(of_method) for of_method in of_use.values()}
        assert seeds == {1 if use in ('long', 'diffusion_15') else 3}
    assert all(len(each) == 1 for each in noise.values())
    scanned = [use for use, of_use in costs.items() if 'baselines' in of_use['evolution'][0]]
    assert sorted(scanned) == ['consistency_1', 'consistency_2', 'diffusion_9']


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
    environment_of(tmp_path, f'exec {sys.executable} "$@"')
    environment = os.environ | {'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(tmp_path)}
    command = ['bash', 'launch/study.sh', 'lcsc', '1']
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1800
    )
    assert done.returncode == 0, done.stderr[-3000:]
    folder = tmp_path / 'runs' / 'study' / 'lcsc'
    text = (folder / 'study.md').read_text()
    assert text in done.stdout and text.count('### ') == 6
    assert all(text.count(f'| {name} |') >= 4 for name in METHODS.values())
    stored = json.loads((folder / 'study.json').read_text())
    assert list(stored) == list(USES) and set(stored['diffusion_9']['curves']) == set(METHODS)
    named = stored['consistency_1']['columns']
    assert named['main'] == 'fd_lenet' and named['some'] == ['fd_pixel']
    assert named['never'] == ['fd_lenet_digits_2', 'fd_lenet_fashion_mnist']
    assert named['qualities'] == ['precision_lenet_digits_2', 'recall_lenet_digits_2']
    assert np.asarray(PIL.Image.open(folder / 'study.png')).std() > 0
