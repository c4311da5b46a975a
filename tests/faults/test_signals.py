"""Ctrl-C and SIGTERM: one line that says what the same command does next, and status 128 + signal."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from etils import epath

from cm_jax import interrupts, run_folder
from cm_jax.__main__ import commands as all_commands
from tests.helpers import commands
from tests.helpers.paths import ROOT

BOTH = (signal.SIGINT, signal.SIGTERM)
# The beginning of a program that does what `python -m cm_jax.train` does first.
INSTALL = "from cm_jax import interrupts\ninterrupts.install_for('train')\n"


def heed():
    """Before a process starts: the tests may themselves run where SIGINT is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def program(body: str, preexec_fn=heed) -> subprocess.Popen:
    """Starts a short program that stands for a command, and waits until it prints a line."""
    process = subprocess.Popen(
        [sys.executable, '-c', textwrap.dedent(body)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={k: v for k, v in os.environ.items() if k != 'PYTHONUNBUFFERED'},
        preexec_fn=preexec_fn,
    )
    if process.stdout.readline() != 'ready\n':
        process.kill()
        raise AssertionError(process.communicate()[1])
    return process


def ended(process: subprocess.Popen, number: int, times: int = 1) -> tuple[int, str]:
    """(status, stderr) of a process after a signal."""
    for _ in range(times):
        process.send_signal(number)
        time.sleep(0.2 * (times > 1))
    _, err = process.communicate(timeout=60)
    return process.returncode, err


def wait_for_library(process: subprocess.Popen, library: str) -> None:
    """Waits until a process has begun to load a library."""
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        with open(f'/proc/{process.pid}/maps') as file:
            if library in file.read():
                return
        time.sleep(0.005)
    raise AssertionError(process.communicate()[1])


@pytest.mark.devices
@pytest.mark.parametrize(
    ('command', 'number', 'next_time'),
    [
        ('train', signal.SIGTERM, 'continues'),
        ('evaluate', signal.SIGINT, 'continues'),
        *(
            pytest.param(name, number, None, marks=pytest.mark.slow)
            for name in all_commands()
            for number in BOTH
        ),
    ],
)
def test_a_command_that_is_stopped_while_it_starts(command, number, next_time):
    next_time = next_time or ('continues' if command in interrupts.CONTINUE else 'starts again')
    process = commands.start(command, preexec_fn=heed)
    wait_for_library(process, 'jaxlib')
    line = f'stopped by {signal.Signals(number).name}; the same command {next_time}\n'
    assert ended(process, number) == (128 + number, line)


@pytest.mark.parametrize(
    ('work', 'number'),
    [
        ("import hashlib\nhashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)", signal.SIGINT),
        ('while True:\n  try: pass\n  except BaseException: pass', signal.SIGTERM),
    ],
    ids=['in a library that does not return', 'where every exception is caught'],
)
def test_it_ends_at_any_moment(work, number):
    process = program(f"{INSTALL}import os\nprint('behind')\nos.write(1, b'ready\\n')\n{work}")
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    name = signal.Signals(number).name
    assert (process.returncode, err) == (
        128 + number,
        f'stopped by {name}; the same command continues\n',
    )
    assert out == 'behind\n'  # nothing that was printed is lost


def test_the_first_signal_is_deferred_and_the_second_ends_it():
    body = """
        import time
        interrupts.defer(lambda number: print('noted', number, flush=True))
        print('ready', flush=True)
        time.sleep(100)
        """
    process = program(INSTALL + textwrap.dedent(body))
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == f'noted {int(signal.SIGTERM)}\n'
    assert process.poll() is None
    status, err = ended(process, signal.SIGINT)
    assert status == 130 and err == 'stopped by SIGINT; the same command continues\n'


def test_the_line_is_not_written_behind_a_progress_bar():
    process = program(
        f'{INSTALL}import time, tqdm\nwith tqdm.tqdm(total=3):\n'
        "  print('ready', flush=True)\n  time.sleep(100)"
    )
    status, err = ended(process, signal.SIGTERM)
    assert status == 143 and err.splitlines()[-1] == (
        'stopped by SIGTERM; the same command continues'
    )


def test_with_fresh_the_same_command_would_start_afresh(tmp_path):
    process = program(
        "import sys\nsys.argv.append('--fresh')\n"
        f"{INSTALL}import time\nprint('ready', flush=True)\ntime.sleep(100)"
    )
    said = ended(process, signal.SIGTERM)
    assert said == (143, 'stopped by SIGTERM; the same command starts again\n')
    interrupts.tell(interrupts.STARTS_AGAIN)  # whatever another test left
    before = interrupts.line(signal.SIGTERM)
    with run_folder.claim(epath.Path(tmp_path) / 'run', {'seed': 0}, fresh=True):
        said = interrupts.line(signal.SIGTERM)
    assert said == 'stopped by SIGTERM; the same command continues without --fresh' != before
    interrupts.tell(interrupts.STARTS_AGAIN)


def test_a_signal_that_was_ignored_at_the_start_stays_ignored():
    process = program(
        f"{INSTALL}import time\nprint('ready', flush=True)\ntime.sleep(100)",
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    assert process.poll() is None
    assert ended(process, signal.SIGTERM)[0] == 143


def test_a_signal_to_a_forked_process_is_not_its_parents():
    body = """
        import os, signal, time
        child = os.fork()
        if not child:
            time.sleep(100)
        time.sleep(0.2)
        os.kill(child, signal.SIGTERM)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGTERM
        print('ready', flush=True)
        time.sleep(100)
        """
    process = program(INSTALL + textwrap.dedent(body))
    assert process.poll() is None
    assert ended(process, signal.SIGTERM)[0] == 143


def test_only_a_command_of_the_package_takes_the_signals(monkeypatch):
    for arguments, name in (
        (['python', '-m', 'cm_jax.train', '--workdir=x'], 'train'),
        (['python', '-X', 'dev', '-m', 'cm_jax.search'], 'search'),
        (['python', '-mcm_jax.sample'], 'sample'),
        (['python', '-m', 'cm_jax'], ''),
        (['python', '-m', 'pytest', 'cm_jax'], None),
        (['python', '-m', 'cm_jax_of_another'], None),
    ):
        monkeypatch.setattr(sys, 'orig_argv', arguments)
        monkeypatch.setattr(sys, 'argv', ['-m', *arguments[3:]])
        assert interrupts.command_of_interpreter() == name, arguments
    monkeypatch.setattr(sys, 'argv', ['notebook.py', '-m', 'cm_jax.train'])
    assert interrupts.command_of_interpreter() is None
