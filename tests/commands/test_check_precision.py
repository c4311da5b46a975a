"""What people are told of the precision of a run: by a command of its own, and as training starts."""

import itertools

import pytest

from cm_jax.core.precision import PRECISIONS
from cm_jax.models.unet import DTYPES
from tests.helpers import commands, tiny
from tests.helpers.run_folders import untrained_run


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    config = tiny.get_config('ect')
    config.model.num_blocks = 1
    return untrained_run(tmp_path_factory.mktemp('run') / 'ect', config)


@pytest.mark.slow
def test_the_command_prints_a_row_for_every_dtype_and_precision(run):
    out = commands.run('check_precision', f'--workdir={run.workdir}', '--count=1')
    assert 'ect, weights of step 2, the gap of step 12; 1 images; cpu' in out
    rows = [line.split(' | ') for line in out.splitlines() if line.startswith('| ')][2:]
    found = {(row[0].removeprefix('| '), row[1]): row[2:] for row in rows}
    assert list(found) == list(itertools.product(DTYPES, PRECISIONS))
    for precision in PRECISIONS:  # on the CPU they are one
        assert all(cell.startswith('1.0000 (1.000)') for cell in found['float32', precision])
        assert found['bfloat16', precision] == found['bfloat16', 'default']
    assert found['bfloat16', 'default'] != found['float32', 'default']


@pytest.mark.slow
def test_training_begins_with_a_warning_where_the_signal_of_the_last_gap_is_lost(run, tmp_path):
    settings = ('model.num_blocks=1', 'model.dtype=bfloat16', 'objective.double_every=1')
    options = [f'--config.{setting}' for setting in settings]
    options += [f'--workdir={tmp_path}/coarse', f'--config.init_from.workdir={run.workdir}']
    out = commands.run('train', '--config=tests/helpers/tiny.py:ect', *options)
    lost = 'warning: model.dtype bfloat16 with model.precision default loses the signal'
    assert [line for line in out.splitlines() if lost in line] and 'highest' in out
