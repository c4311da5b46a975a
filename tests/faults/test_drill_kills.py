"""The drill, first part: 100 kills at random moments; nothing is lost, and all ends as undisturbed."""

import collections
import pathlib
import shutil
import signal
import subprocess
import time
from typing import NamedTuple

import numpy as np
import pytest
from etils import epath

from cm_jax import checkpoint
from cm_jax.files import read_json_lines
from tests.helpers import commands, drill

KILLS = {'train': 45, 'evaluate': 15, 'search': 40}
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
# Before a process has come to the package, a signal ends it as it ends Python, without the line.
# So it does in the last moment, when all is written.
START = 0.5  # s
pytestmark = [
    pytest.mark.slow,
    pytest.mark.devices,
    pytest.mark.filterwarnings('ignore:os.fork:RuntimeWarning'),
]


class Tally(NamedTuple):
    """What became of a command that was killed again and again."""

    signals: collections.Counter  # kills by signal
    ends: list[list[str]]  # of each run that came to its end: the results that are others
    lost: list[str]  # what was complete before a kill, and is no longer
    silent: list[str]  # signals that ended in something else than their one line


def heed() -> None:
    """Before a process starts: the tests may themselves run where SIGINT is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def begin(command: str, whole: pathlib.Path, runs: pathlib.Path) -> None:
    """Makes the folder anew in which a command is to be run: training has all to do itself."""
    shutil.rmtree(runs, ignore_errors=True)
    runs.mkdir()
    if command != 'train':
        shutil.copytree(whole / 'run', runs / 'run')
        (runs / 'run' / 'scores.jsonl').unlink(missing_ok=True)


def progress(command: str, runs: pathlib.Path) -> int:
    """A number that a kill must not lower: the newest training state, or the rows of the results."""
    if command == 'train':
        return max(checkpoint.list_steps(runs / 'run' / 'resume'), default=0)
    rows = {'evaluate': 'run/scores.jsonl', 'search': 'lcsc/report.jsonl'}[command]
    return len(read_json_lines(epath.Path(runs / rows)))


def ends_in_its_line(number: int, status: int, err: str) -> bool:
    """Whether a process that was sent a signal ended by the line that tells of it."""
    line = f'stopped by {signal.Signals(number).name}; the same command continues'
    return status == 128 + number and err.rstrip().endswith(line) and 'Traceback' not in err


def kill(command: str, whole: pathlib.Path, runs: pathlib.Path, count: int, rng) -> Tally:
    """Kills a command so often, each time at a random moment of the time that it takes undisturbed.

    What was killed is started again; what came to its end is compared, and begun anew.
    """
    begin(command, whole, runs)
    started = time.monotonic()
    assert drill.run(command, runs).status == 0
    longest = time.monotonic() - started + 3  # s; a process that is no fork imports the libraries
    expected = drill.read(whole)
    tally = Tally(collections.Counter(), [], [], [])
    begin(command, whole, runs)
    while True:
        before, is_last = progress(command, runs), tally.signals.total() == count
        process = commands.start(command, *drill.arguments(command, runs), preexec_fn=heed)
        moment, number = rng.uniform(0, longest), rng.choice(SIGNALS)
        try:
            _, err = process.communicate(timeout=600 if is_last else moment)
        except subprocess.TimeoutExpired:
            process.send_signal(number)
            _, err = process.communicate(timeout=120)
            tally.signals[signal.Signals(number).name] += 1
        else:
            assert process.returncode == 0, err[-3000:]
        found, status = drill.read(runs), process.returncode
        other = drill.differing(found, expected)
        tally.lost.extend(found.said)
        if progress(command, runs) < before:
            tally.lost.append(f'{number} at {moment} s: {before} had come')
        has_all = status in (0, -number) and not other
        is_plain = number == signal.SIGKILL or moment < START or has_all
        if not is_plain and not ends_in_its_line(number, status, err):
            tally.silent.append(f'{number} at {moment} s: {status}, {err[-2000:]}')
        if status == 0:
            tally.ends.append(other)
            if is_last:
                return tally
            begin(command, whole, runs)


@pytest.fixture(scope='module')
def whole(tmp_path_factory) -> dict[str, pathlib.Path]:
    """For each command the runs that nothing disturbed."""
    folder = tmp_path_factory.mktemp('whole')
    made = {}
    for command in KILLS:
        made[command] = folder / command
        begin(command, made.get('train', folder), made[command])
        ended = drill.run(command, made[command])
        assert ended.status == 0, ended.err[-3000:]
    return made


def test_100_kills_lose_nothing(whole, tmp_path):
    tallies = {}
    for place, (command, count) in enumerate(KILLS.items()):
        rng = np.random.default_rng(place)
        tallies[command] = kill(command, whole[command], tmp_path / command, count, rng)
    names = [signal.Signals(number).name for number in SIGNALS]
    last = 'runs to the end', 'lost', 'other results', 'other endings'
    rows = [drill.row('command', 'kills', *names, *last), drill.row(*['---'] * 9)]
    for command, tally in tallies.items():
        by_signal = [tally.signals[name] for name in names]
        other = sum(map(bool, tally.ends))
        numbers = len(tally.ends), len(tally.lost), other, len(tally.silent)
        rows.append(drill.row(command, tally.signals.total(), *by_signal, *numbers))
    drill.write_table('kills', [*rows, '', f'{drill.machine()}.'])
    for command, tally in tallies.items():
        assert not tally.lost and not tally.silent and not any(tally.ends), (command, tally)
