"""How every command starts and fails: one line for a slip, a traceback for a bug."""

import errno
import os
import pathlib
import sys

import jax
import pytest
from ml_collections import ConfigDict

from cm_jax import cli
from cm_jax.errors import UserError


def ended(capsys, error):
    """(exit status, what stderr shows) of a command that raises `error`."""
    with pytest.raises(SystemExit) as exit_, cli.one_line_errors():
        raise error
    return exit_.value.code, capsys.readouterr().err


def test_a_slip_is_one_line_and_status_2(capsys):
    assert ended(capsys, UserError('no step 3;\n there are 1, 2')) == (
        2,
        'error: no step 3; there are 1, 2\n',
    )


def test_a_full_disk_is_one_line_that_names_the_file(capsys):
    status, line = ended(capsys, OSError(errno.ENOSPC, 'No space left on device', 'metrics.jsonl'))
    assert status == 2
    assert line == 'error: No space left on device: metrics.jsonl; what was complete is kept\n'


@pytest.mark.parametrize('number', [errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EEXIST])
def test_a_path_that_cannot_be_used_is_one_line(capsys, number):
    error = OSError(number, os.strerror(number), 'runs/x/scores.jsonl')
    assert ended(capsys, error) == (2, f'error: {os.strerror(number)}: runs/x/scores.jsonl\n')


def test_a_device_without_enough_memory_is_one_line(capsys):
    text = 'RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nA table of buffers'
    status, line = ended(capsys, jax.errors.JaxRuntimeError(text))
    said = 'error: RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes. A smaller batch size takes'
    assert status == 2 and line.startswith(said) and line.count('\n') == 1


def test_all_else_is_left_to_the_traceback():
    gone = OSError(errno.ENOENT, 'gone', 'x')
    others = jax.errors.JaxRuntimeError('INTERNAL: a bug'), ValueError('a bug'), KeyError('a bug')
    for error in (gone, OSError(errno.EACCES, 'no file'), *others):
        with pytest.raises(type(error)) as raised, cli.one_line_errors():
            raise error
        assert raised.value is error


def test_nothing_happens_where_nothing_is_wrong(capsys):
    with cli.one_line_errors():
        pass
    assert capsys.readouterr() == ('', '')


def test_whole_numbers_of_a_flag():
    assert cli.naturals('seeds', ['1', '20']) == (1, 20)
    assert cli.naturals('seeds', None) == cli.naturals('seeds', []) == ()
    for wrong in ('x', '-1', '2147483648', 'nan', '1.5'):
        with pytest.raises(UserError) as raised:
            cli.naturals('seeds', ['1', wrong])
        legal = 'a whole number in [0, 2147483647]'
        assert str(raised.value) == f'--seeds takes {legal}, got 1,{wrong}'


def test_a_config_finds_what_it_imports_from_any_folder_and_in_the_home_folder(
    tmp_path, monkeypatch
):
    (tmp_path / 'configs').mkdir()
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.setattr(sys, 'path', ['first'])
    config = tmp_path / 'configs' / 'mine.py'
    assert cli.open_config(['train', '--config=~/configs/mine.py:a', '--config.steps=2']) == [
        'train',
        f'--config={config}:a',
        '--config.steps=2',
    ]
    assert sys.path == ['first', str(tmp_path)]
    monkeypatch.setattr(sys, 'path', ['first'])
    cli.open_config(['train', '--config', str(config)])
    assert sys.path == ['first', str(tmp_path)]
    elsewhere = pathlib.Path('/nowhere')
    cli.open_config(['train', f'--config={elsewhere / "mine.py"}'])
    assert sys.path == ['first', str(tmp_path)]
    with pytest.raises(UserError, match=r"~nobody_here/x: there is no user 'nobody_here'"):
        cli.open_config(['train', '--config=~nobody_here/x'])


def test_an_override_that_names_no_key_is_told_with_the_legal_ones():
    config = ConfigDict({'steps': 3, 'model': {'channels': 4, 'num_blocks': 1}})
    for argument, words in (
        ('--config.model.chanels=8', ("'chanels'", "did you mean 'channels'", 'num_blocks')),
        ('--config.step=8', ("'step'", "did you mean 'steps'", 'legal: model, steps')),
        ('--config.steps.every=8', ("'every'", 'legal: none')),
    ):
        said = cli.explain_override(['--workdir=x', '--config.steps=2', argument], config)
        assert all(word in said for word in (argument, *words)), said
    assert cli.explain_override(['--workdir=x', '--config.model.channels=2'], config) == ''


def test_processes_are_joined_by_an_address_and_two_numbers():
    cli.join_processes('')
    for spec in ('localhost:1', 'localhost:1,2', 'localhost:1,2,x', 'localhost:1,2,0,0'):
        with pytest.raises(UserError, match=r'--distributed is auto or HOST:PORT,COUNT,INDEX, got'):
            cli.join_processes(spec)
