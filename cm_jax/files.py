"""Files that are written whole or not at all, files of JSON lines, and checksums."""

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath


def write_text(path: epath.Path, text: str) -> None:
    """Writes a file whole or not at all."""
    beside = path.parent / f'{path.name}.writing'
    try:
        beside.write_text(text)
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def append_json_line(path: epath.Path, row: Mapping[str, Any]) -> dict[str, Any]:
    """Adds one line of JSON to a file; the row as it will be read: non-finite numbers become null.

    A last line without its end, which `read_json_lines` passes over, is dropped first.
    """
    line = json.dumps(_finite(row))
    in_cloud = '://' in str(path)  # where there is no appending
    if path.exists() and (in_cloud or not _ends_in_newline(path)):
        text = path.read_text()
        write_text(path, text[: text.rfind('\n') + 1] + line + '\n')
    else:
        with path.open('a') as file:
            file.write(line + '\n')
    return json.loads(line)


def read_json_lines(path: epath.Path) -> list[dict[str, Any]]:
    """The complete lines of a file of JSON lines; [] where there is no file.

    A last line without its end (the program was killed in the middle of it) is passed over.
    """
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().split('\n')[:-1]]


def drop_lines_after(path: epath.Path, step: int) -> None:
    """Drops the rows later than `step`: a run that goes on from `step` writes them again."""
    if path.exists():
        kept = [row for row in read_json_lines(path) if row['step'] <= step]
        write_text(path, ''.join(json.dumps(row) + '\n' for row in kept))


def sha256(path: pathlib.Path) -> str:
    """The sha256 of a file, as hex."""
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def _finite(value: Any) -> Any:
    """`value` with None for every number in it that is not finite."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _ends_in_newline(path: epath.Path) -> bool:
    """Whether a file ends in a newline, or is empty."""
    with path.open('rb') as file:
        if not file.seek(0, os.SEEK_END):
            return True
        file.seek(-1, os.SEEK_END)
        return file.read() == b'\n'
