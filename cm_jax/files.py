"""Writes files so that they are never left incomplete, reads and writes JSON lines, and checksums."""

import hashlib
import itertools
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath


def write_text(path: epath.Path, text: str) -> None:
    """Writes a file completely or, if the program is killed or the disk is full, not at all.

    The text goes to a file of another name, which then replaces `path`. Raises OSError, and leaves
    `path` as it was, if writing fails.
    """
    unfinished = path.parent / f'{path.name}.writing'
    try:
        unfinished.write_text(text)
        unfinished.replace(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise


def append_json_line(path: epath.Path, row: Mapping[str, Any]) -> dict[str, Any]:
    """Appends `row` to a file as one line of JSON, and returns it as it will be read back.

    Numbers that are not finite become null, and tuples become lists. If a killed program has left an
    incomplete last line, it is removed first; `read_json_lines` ignores it too.
    """
    line = json.dumps(_finite(row))
    in_cloud = '://' in str(path)  # cloud storage cannot append to a file
    if path.exists() and (in_cloud or not _ends_in_newline(path)):
        text = path.read_text()
        write_text(path, text[: text.rfind('\n') + 1] + line + '\n')
    else:
        with path.open('a') as file:
            file.write(line + '\n')
    return json.loads(line)


def read_json_lines(path: epath.Path) -> list[dict[str, Any]]:
    """Returns the rows of a file of JSON lines, or [] if there is no file.

    An incomplete last line, left by a program that was killed while it wrote, is ignored.
    """
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().split('\n')[:-1]]


def drop_lines_after(path: epath.Path, step: int) -> None:
    """Removes the rows whose 'step' is later than `step` from a file of JSON lines, if it exists.

    A run that resumes from `step` will write those rows again.
    """
    if path.exists():
        kept = [row for row in read_json_lines(path) if row['step'] <= step]
        write_text(path, ''.join(json.dumps(row) + '\n' for row in kept))


def free_name(path: epath.Path, word: str) -> epath.Path:
    """Returns the first of `<path>.<word>1`, `<path>.<word>2`, ... that does not exist."""
    names = (path.parent / f'{path.name}.{word}{n}' for n in itertools.count(1))
    return next(name for name in names if not name.exists())


def sha256(path: pathlib.Path) -> str:
    """Returns the sha256 of a file, in hexadecimal."""
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def _finite(value: Any) -> Any:
    """Returns `value` with None in place of every number in it that is not finite."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _ends_in_newline(path: epath.Path) -> bool:
    """Returns whether a file is empty or ends in a newline."""
    with path.open('rb') as file:
        if not file.seek(0, os.SEEK_END):
            return True
        file.seek(-1, os.SEEK_END)
        return file.read() == b'\n'
