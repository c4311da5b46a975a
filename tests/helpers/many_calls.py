"""Calls a command with many command lines, in one process, as `python -m` would each time."""

import contextlib
import json
import os
import pathlib
import runpy
import sys
import time
import traceback
from collections.abc import Sequence
from typing import NamedTuple

from absl import flags

from tests.helpers import commands
from tests.helpers.slips import wrong_values


class Call(NamedTuple):
    """How a call has ended: its CPU seconds, and the files that it left."""

    line: list[str]
    status: int
    err: str
    seconds: float
    written: list[str]


def call(command: str, lines: Sequence[Sequence[object]], folder: pathlib.Path) -> list[Call]:
    """Calls a command with each of the lines, and with each wrong number for each of its flags.

    `folder` is where the lines may leave files.
    """
    result = folder / 'calls.json'
    texts = [[str(part) for part in line] for line in lines]
    assert commands.in_fork(_call, command, texts, str(folder), str(result)) == 0
    return [Call(**row) for row in json.loads(result.read_text())]


def _call(command: str, lines: list[list[str]], folder: str, result: str) -> None:
    """What the fork does."""
    module, kept = f'cm_jax.{command}', set(flags.FLAGS)
    runpy.run_module(module)  # defines the flags, and calls nothing
    for name in sorted(set(flags.FLAGS) - kept):
        legal = getattr(flags.FLAGS[name].parser, 'legal', None)
        if legal is not None:
            lines += [[f'--{name}={value}'] for value in wrong_values(legal)]
    rows = [_call_once(module, line, folder, kept) for line in lines]
    pathlib.Path(result).write_text(json.dumps(rows))


def _call_once(module: str, line: list[str], folder: str, kept: set[str]) -> dict:
    for name in set(flags.FLAGS) - kept:  # the call defines them again
        delattr(flags.FLAGS, name)
    flags.FLAGS.unparse_flags()
    sys.argv, there, since = [module, *line], _files(folder), time.process_time()
    status, err = 0, pathlib.Path(f'{folder}.err')
    with err.open('w') as file, contextlib.redirect_stderr(file):
        try:
            runpy.run_module(module, run_name='__main__', alter_sys=True)
        except SystemExit as ended:
            status = ended.code
        except Exception:
            status = 1
            traceback.print_exc()
    seconds = time.process_time() - since
    written = sorted(_files(folder) - there)
    return dict(line=line, status=status, err=err.read_text(), seconds=seconds, written=written)


def _files(folder: str) -> set[str]:
    return {os.path.join(at, name) for at, of, names in os.walk(folder) for name in (*of, *names)}
