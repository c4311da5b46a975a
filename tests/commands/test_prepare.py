"""The command prepare: what it prints, and what a kill leaves."""

import json
import os
import subprocess
import sys

import pytest

from cm_jax import data
from cm_jax.data.prepare import prepare
from cm_jax.errors import UserError
from tests.helpers.data_files import made_up, write_idx
from tests.helpers.paths import ROOT


def command(*flags, program=('-m', 'cm_jax.prepare'), **environment):
    return subprocess.run(
        [sys.executable, *program, *flags],
        capture_output=True,
        text=True,
        env={**os.environ, 'PYTHONPATH': str(ROOT), **environment},
    )


def test_the_command_writes_prints_the_card_and_is_quiet(tmp_path):
    raw = write_idx(tmp_path / 'raw', {'train': made_up(9, (6, 6))})
    flags = ('--dataset=small', f'--from={raw}', f'--data_dir={tmp_path}/tfds')
    flags += ('--size=4', '--crop=adm')
    first, second = command(*flags), command(*flags)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert first.stdout.splitlines()[0].endswith('written')
    card = 'small train: 9 images 4x4x1, 3 classes, cropped by adm, mean'
    assert first.stdout.splitlines()[1].startswith(card)
    assert second.stdout.splitlines()[0].endswith('is already prepared from this')
    assert second.stdout.splitlines()[1:] == first.stdout.splitlines()[1:]
    assert first.stderr == second.stderr == ''


def test_the_command_finds_debians_files_and_says_when_it_cannot(tmp_path):
    raw = write_idx(tmp_path / 'raw', {'train': made_up(9, (28, 28))})
    dpkg = tmp_path / 'bin/dpkg'
    dpkg.parent.mkdir()
    listing = '\n'.join(['/.', '/usr', *map(str, raw.iterdir())])
    dpkg.write_text(f'#!/bin/sh\n[ "$*" = "-L dataset-fashion-mnist" ] && echo "{listing}"\n')
    dpkg.chmod(0o755)
    flags = ('--dataset=fashion_mnist', f'--data_dir={tmp_path}/tfds')
    found = command(*flags, PATH=f'{dpkg.parent}:{os.environ["PATH"]}')
    assert 'fashion_mnist train: 9 images' in found.stdout, found.stderr
    absent = command(*flags, PATH='')
    assert absent.returncode == 2 and absent.stdout == ''
    assert len(absent.stderr.splitlines()) == 1
    assert absent.stderr.startswith('error: no --from')
    assert 'apt-get install dataset-fashion-mnist' in absent.stderr


def test_a_killed_run_leaves_nothing_and_the_next_starts_clean(tmp_path):
    raw = write_idx(tmp_path / 'raw', {'train': made_up(9, (6, 6))})
    killed = f"""
import os
from cm_jax.data import card, prepare
card.make = lambda source: os._exit(9)
prepare.prepare('small', {str(raw)!r}, {str(tmp_path / 'tfds')!r})
"""
    assert command(program=('-c', killed)).returncode == 9
    assert (tmp_path / 'tfds/small/.preparing').exists()
    with pytest.raises(UserError, match=r'not prepared'):
        data.open_source('tfds', 'train', name='small', data_dir=str(tmp_path / 'tfds'))
    prepared = prepare('small', str(raw), str(tmp_path / 'tfds'))
    assert prepared.is_new and os.listdir(tmp_path / 'tfds/small') == ['1.0.0']
    stored = json.loads((prepared.folder / 'data_card_train.json').read_text())
    assert stored == prepared.cards['train']
