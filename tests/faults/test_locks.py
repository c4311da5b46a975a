"""Two commands that write one folder: the second is refused and told who is at work."""

import errno
import fcntl
import json
import multiprocessing
import os
import signal
import socket
import time

import pytest
from etils import epath

from cm_jax import locks, run_folder
from cm_jax.errors import UserError
from cm_jax.files import append_json_line, read_json_lines, write_text
from cm_jax.run import open_run
from tests.helpers import commands
from tests.helpers.refusals import refusal

ONE, OTHER = {'seed': 0}, {'seed': 1}
TINY = '--config=tests/helpers/tiny.py:ect'


@pytest.fixture
def folder(tmp_path):
    return epath.Path(tmp_path) / 'runs' / 'ect'


def refused(folder, function=locks.hold, *arguments, **settings) -> str:
    """The text by which the body of a `with` statement is refused."""

    def enter():
        with function(folder, *arguments, **settings):
            raise AssertionError('the lock is held twice')

    return refusal(enter)


def test_the_second_is_told_who_holds_the_lock_and_afterwards_nothing_is_left(folder):
    with locks.hold(folder):
        said = refused(folder)
        assert f'{folder} is in use by process {os.getpid()} on {socket.gethostname()}' in said
        assert time.strftime(' since %Y-%m-%d %H:') in said and 'pytest' in said, said
        assert 'wait until that ends, or stop it' in said
        with pytest.raises(UserError, match='is in use by'):
            locks.check_free(folder)
    assert list(folder.iterdir()) == []
    locks.check_free(folder)
    with locks.hold(folder):
        pass


def hold_until_killed(folder, pipe):
    with locks.hold(folder):
        pipe.send('held')
        time.sleep(100)


def test_a_killed_process_holds_nothing_whatever_its_file_says(folder):
    spawn = multiprocessing.get_context('fork')
    receive, send = spawn.Pipe()
    process = spawn.Process(target=hold_until_killed, args=(folder, send))
    process.start()
    receive.recv()
    assert f'process {process.pid} ' in refused(folder)
    process.kill()
    process.join()
    assert (folder / locks.LOCK).read_text().startswith(f'process {process.pid} ')
    with locks.hold(folder):
        assert (folder / locks.LOCK).read_text().startswith(f'process {os.getpid()} ')
    assert not (folder / locks.LOCK).exists()


def test_a_folder_that_is_renamed_meanwhile_keeps_its_lock(folder):
    aside = folder.parent / 'aside'
    with locks.hold(folder):
        folder.rename(aside)
        assert 'is in use' in refused(aside)
        with locks.hold(folder):  # another folder of that name
            pass
    assert list(aside.iterdir()) == []


def test_where_there_are_no_locks_the_terminal_is_told(folder, monkeypatch, capsys):
    def flock(handle, operation):
        raise OSError(errno.ENOLCK, 'No locks available')

    monkeypatch.setattr(fcntl, 'flock', flock)
    for place in (folder, epath.Path('gs://bucket/run')):
        with locks.hold(place), locks.hold(place):
            pass
        line = f'  {place} has no file locks: no other command may write there\n'
        assert capsys.readouterr().out == 2 * line
    assert list(folder.iterdir()) == []
    append_json_line(folder / 'rows.jsonl', {'a': 1})
    assert read_json_lines(folder / 'rows.jsonl') == [{'a': 1}]


def test_a_claimed_folder_cannot_be_claimed_or_set_aside(folder):
    with run_folder.claim(folder, ONE):
        assert 'is in use by' in refused(folder, run_folder.claim, ONE)
        assert 'is in use by' in refused(folder, run_folder.claim, OTHER, fresh=True)
        assert 'holds another run' in refused(folder, run_folder.claim, OTHER)
        assert [path.name for path in folder.parent.iterdir()] == ['ect']
    with run_folder.claim(folder, OTHER, fresh=True):
        assert 'is in use by' in refused(folder, run_folder.claim, OTHER)
    assert [path.name for path in folder.iterdir()] == [run_folder.CONFIG]


def test_a_folder_in_which_a_lock_alone_was_left_is_new(folder):
    write_text_of_lock = 'process 1 on a machine since yesterday: train'
    folder.mkdir(parents=True)
    (folder / locks.LOCK).write_text(write_text_of_lock)
    assert run_folder.is_new(folder, ONE)
    with run_folder.claim(folder, ONE):
        pass
    assert not (folder / locks.LOCK).exists()


def add_rows(path, name):
    for number in range(200):
        append_json_line(path, {'name': name, 'number': number, 'long': 'x' * 5000})


def test_rows_of_processes_that_append_at_once_are_all_there_and_whole(tmp_path):
    """As of two evaluations of one run."""
    path = epath.Path(tmp_path) / 'scores.jsonl'
    path.write_text('{"name": "before", "number": 0}\n{"name": "cut sho')
    fork = multiprocessing.get_context('fork')
    processes = [fork.Process(target=add_rows, args=(path, name)) for name in 'ab']
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for name in 'ab':
        assert [row['number'] for row in rows if row['name'] == name] == list(range(200))
    assert len(rows) == 401 and rows[0]['name'] == 'before'


def test_files_that_two_processes_write_at_once_are_whole(tmp_path, monkeypatch):
    """The unfinished files of two processes are not the same file."""
    path, names = epath.Path(tmp_path) / 'curve.json', []
    replace = type(path).replace
    monkeypatch.setattr(
        type(path), 'replace', lambda self, to: (names.append(self.name), replace(self, to))
    )
    for pid in (11, 12):
        monkeypatch.setattr(os, 'getpid', lambda pid=pid: pid)
        write_text(path, 'text')
    assert len(set(names)) == 2 and path.read_text() == 'text'


@pytest.mark.devices
def test_of_two_trainings_in_a_folder_the_second_is_refused_until_the_first_is_killed(tmp_path):
    folder = tmp_path / 'run'
    arguments = [TINY, f'--workdir={folder}']
    first = commands.start('train', *arguments)
    metrics, until = folder / 'metrics.jsonl', time.monotonic() + 300
    while not (metrics.exists() and '"step": 5,' in metrics.read_text()):
        assert first.poll() is None and time.monotonic() < until
        time.sleep(0.01)
    first.send_signal(signal.SIGSTOP)
    line = commands.error('train', *arguments)
    assert f'{folder} is in use by process {first.pid} on ' in line
    assert f'-m cm_jax.train {TINY} --workdir={folder}; wait' in line, line
    first.kill()
    first.communicate()
    commands.run('train', *arguments)
    assert [row['step'] for row in open_run(folder).metrics()] == list(range(1, 13))
    assert not (folder / locks.LOCK).exists()
