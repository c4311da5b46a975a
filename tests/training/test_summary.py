"""The table of a run's settings, and the metrics in Weights & Biases."""

import sys
import types

import jax
import numpy as np
import pytest
from etils import epath

from cm_jax.errors import UserError
from cm_jax.files import read_json_lines
from cm_jax.training.logs import Log
from cm_jax.training.setup import set_up
from cm_jax.training.summary import describe, say_done, schedule, tree_bytes
from cm_jax.training.weights_and_biases import WeightsAndBiases
from tests.helpers import tiny
from tests.helpers.tiny import settings_of


def test_the_table_has_the_resolved_settings_and_sizes_that_can_be_read(tmp_path):
    config = tiny.get_config('ect')
    config.train.accumulate = 2
    run = set_up(settings_of(config), epath.Path(tmp_path))
    text = describe(run, 0)
    rows = dict(line.strip().split('  ', 1) for line in text.splitlines() if '  ' in line.strip())
    assert rows['batch'].strip() == '16 images globally, 16 a device in 2 micro-batches of 8'
    assert rows['noise levels'].strip() == 't from 0.002 to 80 (ve)'
    assert rows['schedule'].strip().startswith('3 stages of 4 steps; r/t from 0 to 0.375 for small')
    assert '2,845 parameters in float32' in text and "precision 'default'" in text
    assert 'weights 11 kB, optimiser 23 kB, averages 34 kB' in text and '0.0 MB' not in text
    assert '7 snapshots of 11 kB, 114 kB together' in text
    assert 'continues' not in text and 'continues at step 4' in describe(run, 4)


def test_the_bytes_of_a_tree_are_those_of_its_arrays():
    tree = {'a': np.zeros((3, 5), np.float32), 'b': [np.zeros(7, np.int8)]}
    assert tree_bytes(tree) == 67
    assert tree_bytes(jax.device_put(tree), share=True) == 67


@pytest.mark.parametrize(
    ('objective', 'steps', 'words'),
    [
        ({'name': 'ict', 'total_steps': 800}, 800, 'N(k) from 11 to 1,281 levels'),
        (
            {'name': 'ct', 'total_steps': 800},
            800,
            'N(k) from 2 to 151 levels; target EMA from 0.81',
        ),
        ({'name': 'cd'}, 800, 'N = 18 levels; heun steps of the teacher'),
        (
            {'name': 'pd', 'halve_every': 100, 'start_steps': 8},
            300,
            'sampling steps of the student from 4 to 1',
        ),
        ({'name': 'edm'}, 800, ''),
    ],
)
def test_schedules_are_told_by_their_ends(objective, steps, words):
    text = schedule(objective, steps)
    assert text.startswith(words) and bool(text) == bool(words)


def test_a_run_that_is_done_names_the_commands_that_use_it(tmp_path, capsys):
    run = set_up(settings_of(tiny.get_config('ect')), epath.Path(tmp_path))
    say_done(run, epath.Path('configs/digits_ect.py'))
    out = capsys.readouterr().out
    assert f'{tmp_path} is done: 12 of 12 steps' in out
    assert f'next: python -m cm_jax.evaluate --workdir={tmp_path}\n' in out
    search = f'--workdir={tmp_path}_lcsc --config.basis.workdir={tmp_path}'
    assert f'cm_jax.search --config=configs/digits_ect_lcsc.py {search}\n' in out
    say_done(run, epath.Path('tests/helpers/tiny.py'))
    assert 'cm_jax.search' not in capsys.readouterr().out


class Wandb(types.ModuleType):
    """Stands in for the package: keeps what it is given."""

    Error = ConnectionError

    def __init__(self, fails: bool = False):
        super().__init__('wandb')
        self.calls, self.logged, self.ended, self.fails = [], [], [], fails

    def init(self, **arguments):
        if self.fails:
            raise self.Error('no API key')
        self.calls.append(arguments)
        return types.SimpleNamespace(
            id=arguments['id'] or 'abc',
            log=lambda row, step: self.logged.append((step, row)),
            finish=lambda exit_code: self.ended.append(exit_code),
        )


def test_metrics_go_to_weights_and_biases_and_a_run_that_continues_goes_on_there(
    tmp_path, monkeypatch
):
    package = Wandb()
    monkeypatch.setitem(sys.modules, 'wandb', package)
    for first in (0, 4):
        tracker = WeightsAndBiases('digits', epath.Path(tmp_path), {'steps': 12})
        with Log(tmp_path, first, 12, 16, True, tracker) as log:
            log.tick(first + 1)
            log.write(first + 4, {'loss': 0.5})
    with pytest.raises(ZeroDivisionError), Log(tmp_path, 8, 12, 16, True, tracker):
        raise ZeroDivisionError
    assert [call['id'] for call in package.calls] == [None, 'abc'] and package.ended == [0, 0, 1]
    assert all(call['resume'] == 'allow' for call in package.calls)
    assert package.calls[0]['project'] == 'digits' and package.calls[0]['config'] == {'steps': 12}
    rows = read_json_lines(epath.Path(tmp_path) / 'metrics.jsonl', 'step')
    assert package.logged == [(row['step'], row) for row in rows] and len(rows) == 2


def test_weights_and_biases_that_cannot_be_had_are_one_line_before_any_compute(
    tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, 'wandb', None)  # as where it is not installed
    config = tiny.get_config('ect')
    config.train.wandb = 'digits'
    with pytest.raises(UserError, match=r"train\.wandb = 'digits' needs the package wandb: pip"):
        set_up(settings_of(config), epath.Path(tmp_path))
    monkeypatch.setitem(sys.modules, 'wandb', Wandb(fails=True))
    set_up(settings_of(config), epath.Path(tmp_path))
    with pytest.raises(UserError, match='no API key; WANDB_MODE=offline'):
        WeightsAndBiases('digits', epath.Path(tmp_path), {})
