"""What the drill of tests/faults/test_drill_*.py does to commands, and how it judges what is left.

The commands train, evaluate and search work on the runs of tests/helpers/tiny.py, in seconds. What is
compared is all that anyone can read of the folders afterwards, but for times.
"""

import functools
import os
import pathlib
import platform
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from cm_jax import checkpoint, run_folder
from cm_jax.errors import UserError
from cm_jax.files import read_json_lines
from cm_jax.run import open_run
from tests.helpers import commands
from tests.helpers.paths import ROOT

PAGE = ROOT / 'docs' / 'reliability.md'
TIMES = ('images_per_s', 'seconds')  # keys of rows that no two runs share
SAMPLERS = ('--sampler=onestep', '--sampler=multistep@80,1', '--sampler=heun@3')
RECORDS = ('report', 'chosen', 'coefficients', 'landscape', 'origin')
Reads = dict[str, Callable[[], Any]]  # what can be read, by name


def arguments(command: str, runs: pathlib.Path) -> list[str]:
    """The command line of a command in a folder of runs: run/ is trained, and lcsc/ searches in it."""
    return {
        'train': ['--config=tests/helpers/tiny.py:ect', f'--workdir={runs}/run'],
        'evaluate': [f'--workdir={runs}/run', '--ema=', *SAMPLERS],
        'search': [
            '--config=tests/helpers/tiny_search.py',
            f'--config.basis.workdir={runs}/run',
            f'--workdir={runs}/lcsc',
        ],
    }[command]


def run(command: str, runs: pathlib.Path) -> commands.Ended:
    """Runs one of the commands to its end."""
    return commands.fork(command, *arguments(command, runs))


class Found(NamedTuple):
    """What was read: values by name, and the lines of the refusals and warnings on the way."""

    values: dict[str, Any]
    said: list[str]


def read(runs: pathlib.Path) -> Found:
    """Reads all that there is; what is refused has no value."""
    values, said = {}, []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        reads = _reads_of_run(runs / 'run') | _reads_of_search(runs / 'lcsc')
        for name, load in reads.items():
            try:
                values[name] = _plain(load(), runs)
            except UserError as error:
                said.append(f'error: {error}')
    return Found(values, [*said, *(f'warning: {warning.message}' for warning in caught)])


def differing(found: Found, expected: Found) -> list[str]:
    """The names of the results that are missing or others than expected."""
    names = found.values.keys() | expected.values.keys()
    return sorted(n for n in names if found.values.get(n) != expected.values.get(n))


def _reads_of_run(folder: pathlib.Path) -> Reads:
    """Of a training run; the newest training state is the one that it would go on from."""
    newest = checkpoint.list_steps(folder / 'resume')[-1:]
    reads = _reads_of_steps(folder / 'trajectory') | _reads_of_steps(folder / 'resume', newest)
    return _named(folder, reads | _reads_of_rows(folder, 'metrics', 'scores'))


def _reads_of_search(folder: pathlib.Path) -> Reads:
    """Of a search, if there is one."""
    reads = _reads_of_steps(folder / 'trajectory') | _reads_of_rows(folder, 'search', 'random')
    for name in RECORDS:
        if (folder / f'{name}.json').exists():
            record = functools.partial(run_folder.read_record, epath.Path(folder), f'{name}.json')
            reads[name] = record
    return _named(folder, reads)


def _named(folder: pathlib.Path, reads: Reads) -> Reads:
    """These, under the name of their folder, and the config of the folder."""
    if (folder / 'config.json').exists():
        reads['config'] = lambda: open_run(folder).config.to_dict()
    return {f'{folder.name}/{name}': load for name, load in reads.items()}


def _reads_of_steps(folder: pathlib.Path, steps: Iterable[int] | None = None) -> Reads:
    """All trees of all steps of a stream, or of these."""
    reads: Reads = {}
    for step in checkpoint.list_steps(folder) if steps is None else steps:
        for path in (folder / str(step)).iterdir():
            if path.is_dir() and path.name not in ('meta', 'checksums'):
                load = functools.partial(checkpoint.load, folder, step, path.name)
                reads[f'{folder.name}/{step}/{path.name}'] = load
    return reads


def _reads_of_rows(folder: pathlib.Path, *names: str) -> Reads:
    """All rows of these files of JSON lines."""
    return {name: functools.partial(_rows, folder / f'{name}.jsonl') for name in names}


def _rows(path: pathlib.Path) -> list[dict[str, Any]]:
    """The rows of a file, without times."""
    rows = read_json_lines(epath.Path(path))
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def _plain(value: Any, runs: pathlib.Path) -> Any:
    """A value that can be compared with that of runs in another place."""
    if isinstance(value, str):
        return value.replace(str(runs), 'RUNS')
    if isinstance(value, Mapping):
        return {key: _plain(child, runs) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(child, runs) for child in value]
    if isinstance(value, np.ndarray | jax.Array):
        return str(value.dtype), value.shape, np.asarray(value).tobytes()
    return value


def row(*cells: object) -> str:
    """A row of a table in Markdown."""
    return f'| {" | ".join(map(str, cells))} |'


def write_table(name: str, lines: Iterable[str]) -> None:
    """Writes lines between the marks <!-- name --> and <!-- /name --> of docs/reliability.md."""
    head, begin, rest = PAGE.read_text().partition(f'<!-- {name} -->\n')
    _, end, tail = rest.partition(f'<!-- /{name} -->\n')
    assert begin and end, f'{PAGE} has no marks for {name}'
    table = ''.join(f'{line}\n' for line in lines)
    PAGE.write_text(f'{head}{begin}\n{table}\n{end}{tail}')


def machine() -> str:
    """Where the drill was done."""
    of_python = f'Python {platform.python_version()}, JAX {jax.__version__}'
    return f'{os.cpu_count()} {platform.machine()} cores, {of_python}'
