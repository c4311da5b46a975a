"""The drill, second part: 100 random bytes of a run's files are changed; none in silence."""

import itertools
import pathlib
import re
import shutil
import signal
import time

import numpy as np
import pytest

from tests.helpers import commands, drill
from tests.helpers.faults import files_in, flip_bytes

FLIPS = 100
# What is done where a byte was changed: by the place of the file.
COMMANDS = {'training': ['train'], 'trained': ['evaluate', 'search'], 'searching': ['search']}
TELLS = re.compile('damaged|error: |warning: ')
OUTCOMES = ('harmless', 'mended', 'refused', 'silent')  # docs/reliability.md says what they mean
SNAPSHOTS, STATES = 'snapshots', 'training states'
pytestmark = [
    pytest.mark.slow,
    pytest.mark.devices,
    # What reads a damaged file may still be told of it when it is long done.
    pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning'),
]


def stop_when(
    command: str, runs: pathlib.Path, file: str, rows: int, number: int = signal.SIGKILL
) -> None:
    """Starts a command, and sends it a signal when a file of the runs has so many rows."""
    process = commands.start(command, *drill.arguments(command, runs))
    while not (runs / file).exists() or (runs / file).read_text().count('\n') < rows:
        assert process.poll() is None, process.communicate()[1][-3000:]
        time.sleep(0.005)
    process.send_signal(number)
    process.communicate()


@pytest.fixture(scope='module')
def begun(tmp_path_factory) -> dict[str, pathlib.Path]:
    """Runs of which each has something left to do."""
    folder = tmp_path_factory.mktemp('begun')
    runs = {name: folder / name for name in COMMANDS}
    # A training that is asked to stop saves a state more than it has: there are two.
    stop_when('train', runs['training'], 'run/metrics.jsonl', 5, signal.SIGTERM)
    assert drill.run('train', runs['trained']).status == 0
    shutil.copytree(runs['trained'], runs['searching'])
    stop_when('search', runs['searching'], 'lcsc/report.jsonl', 3)
    stop_when('evaluate', runs['trained'], 'run/scores.jsonl', 1)
    return runs


def go_on(name: str, runs: pathlib.Path) -> tuple[drill.Found, set[str]]:
    """Does what is left to do; what can be read then, and the lines that tell of something."""
    lines = []
    for command in COMMANDS[name]:
        ended = drill.run(command, runs)
        lines += (ended.out + ended.err).splitlines()
        assert ended.status in (0, 2) and 'Traceback' not in ended.err, ended.err[-3000:]
    found = drill.read(runs)
    return found, {
        line.replace(str(runs), 'RUNS') for line in [*lines, *found.said] if TELLS.search(line)
    }


def is_named(file: pathlib.Path, told: set[str]) -> bool:
    """Whether one of the lines names a file, by its path in the runs: its step, or its name."""
    match file.parts:
        case _, 'trajectory' | 'resume' as stream, step, *_:
            words = rf'step {step} in \S*/{stream} is damaged'
        case _:
            words = re.escape(file.name)
    return any(re.search(words, line) for line in told)


def outcome(is_told: bool, wrong: list[str]) -> str:
    """The column of the table that a flip counts in."""
    if wrong:
        return 'refused' if is_told else 'silent'
    return 'mended' if is_told else 'harmless'


def kind(file: pathlib.Path) -> str:
    """The row of the table that a file counts in."""
    match file.parts:
        case _, 'trajectory', *_:
            return SNAPSHOTS
        case _, 'resume', *_:
            return STATES
    return {
        '.json': 'records (JSON)',
        '.jsonl': 'rows (JSON lines)',
        '.png': 'pictures, which no command reads',
    }.get(file.suffix, "TensorBoard's files, which no command reads")


def files_by_kind(begun: dict[str, pathlib.Path]) -> dict[str, list[tuple[str, pathlib.Path]]]:
    """All files with anything in them, as (which runs, path in them), by the row of the table.

    Training states are those of the training that is to go on from them.
    """
    kinds: dict[str, list] = {}
    for name, runs in begun.items():
        for path in files_in(runs):
            file = path.relative_to(runs)
            if path.stat().st_size and (kind(file) != STATES or name == 'training'):
                kinds.setdefault(kind(file), []).append((name, file))
    return dict(sorted(kinds.items()))


def draw(
    begun: dict[str, pathlib.Path], files: list[tuple[str, pathlib.Path]], which: str, rng
) -> tuple[str, pathlib.Path]:
    """One of the files of a kind: of steps every byte is as likely as any other, else every file."""
    sizes = np.array([(begun[name] / file).stat().st_size for name, file in files])
    chances = sizes if which in (SNAPSHOTS, STATES) else np.ones(len(files))
    return files[rng.choice(len(files), p=chances / chances.sum())]


def test_100_flips_are_told_or_harmless(begun, tmp_path):
    """As many in each kind of files."""
    expected = {}
    for name in begun:
        whole = shutil.copytree(begun[name], tmp_path / f'{name}_whole')
        expected[name] = go_on(name, whole)
        assert not expected[name][0].said
    rng, kinds, silent = np.random.default_rng(0), files_by_kind(begun), []
    counts = {which: dict.fromkeys(OUTCOMES, 0) for which in kinds}
    for flip, which in zip(range(FLIPS), itertools.cycle(kinds)):
        name, file = draw(begun, kinds[which], which, rng)
        runs = shutil.copytree(begun[name], tmp_path / 'runs')
        flip_bytes(runs / file, seed=flip, count=1)
        (found, told), (before, usual) = go_on(name, runs), expected[name]
        wrong = drill.differing(found, before)
        came = outcome(is_named(file, told - usual), wrong)
        counts[which][came] += 1
        if came == 'silent':
            silent.append((flip, name, str(file), wrong, told - usual))
        shutil.rmtree(runs)
    rows = [drill.row('a byte changed in', 'times', *OUTCOMES), drill.row(*['---'] * 6)]
    for which, numbers in counts.items():
        rows.append(drill.row(which, sum(numbers.values()), *numbers.values()))
    drill.write_table('flips', [*rows, '', f'{drill.machine()}.'])
    assert not silent, silent
