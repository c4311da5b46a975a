"""Paths that users write; files that are written whole or not at all; JSON; checksums.

Each row of JSON lines, and each JSON object that is read again, has a checksum of itself under the key
CRC32, so that a changed number is noticed. Those of earlier versions have none. A damaged row is left
out, with a warning that names file and line. A damaged file of one JSON value is refused by a UserError
that names them and says what to do.
"""

import contextlib
import hashlib
import itertools
import json
import os
import pathlib
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import IO, Any

import numpy as np
from etils import epath

from cm_jax import locks
from cm_jax.errors import UserError

CRC32 = 'crc32'
NEWLINE = b'\n'
WRITING = '.writing'  # how the name of a file ends that is not yet complete


def expanded(path: str | os.PathLike) -> str:
    """Returns a path with the home folder that ~ or ~user at its beginning stands for.

    Raises UserError if there is no such user.
    """
    text = os.path.expanduser(path)
    if text.startswith('~'):
        raise UserError(f'{text}: there is no user {text.split("/")[0][1:]!r} with a home folder')
    return text


def check_folder(path: epath.Path, name: str, writes: bool = True) -> None:
    """Raises UserError if `path` is not a folder and cannot become one, or cannot be written to.

    `name` is what the message calls it. Only folders of this machine are looked at, and a folder that
    is only read, not `writes`, need not be writable.
    """
    if '://' in str(path):
        return
    place = pathlib.Path(path).absolute()
    there = next(folder for folder in (place, *place.parents) if os.path.exists(folder))
    if not there.is_dir():
        raise UserError(
            f'{name}={path}: {there} is no folder; name one that is there or can be made'
        )
    if writes and not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f'{name}={path}: {there} cannot be written to; name a folder that can')


def write_text(path: epath.Path, text: str) -> None:
    """Writes a file completely or, if the program is killed or the disk is full, not at all.

    The text goes to a file of another name, which then replaces `path`. Raises OSError, and leaves
    `path` as it was, if writing fails.
    """
    write_bytes(path, text.encode())


def write_bytes(path: epath.Path, data: bytes) -> None:
    """Writes a file as `write_text` does."""
    with writing(path) as file:
        file.write(data)


@contextlib.contextmanager
def writing(path: epath.Path | pathlib.Path) -> Iterator[IO[bytes]]:
    """Opens a file to write it as `write_text` does; it is complete when the `with` statement ends."""
    unfinished = path.parent / f'{path.name}.{os.getpid()}{WRITING}'
    try:
        with unfinished.open('wb') as file:
            yield file
        unfinished.replace(path)
    except BaseException as error:
        unfinished.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = error.filename or str(path)  # a full disk does not say which file
        raise


def is_unfinished(path: epath.Path, name: str) -> bool:
    """Returns whether a file is what a killed `write_text` has left of the file `name`."""
    return path.name.startswith(f'{name}.') and path.name.endswith(WRITING)


def append_json_line(path: epath.Path, row: Mapping[str, Any]) -> dict[str, Any]:
    """Appends `row` to a file as one line of JSON, and returns it as it will be read back.

    Numbers that are not finite become null, and tuples become lists. Other processes may append to the
    same file. If a killed one has left an incomplete last line, it is removed first. Raises OSError,
    with the file as it was, if the disk is full.
    """
    plain = _finite(row)
    line = json.dumps(sealed(plain))
    if '://' in str(path):  # cloud storage cannot append to a file
        before = path.read_bytes() if path.exists() else b''
        kept, newline = _complete(before)
        write_text(path, f'{before[:kept].decode()}{newline}{line}\n')
    else:
        with locks.locked_file(path) as file:
            _append(file, f'{line}\n'.encode(), path)
    return json.loads(json.dumps(plain))


def write_json_lines(path: epath.Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes rows that `read_json_lines` has read, in place of all that a file holds."""
    write_text(path, ''.join(f'{json.dumps(sealed(row))}\n' for row in rows))


def read_json_lines(path: epath.Path, *keys: str) -> list[dict[str, Any]]:
    """Returns the rows of a file of JSON lines, or [] if there is no file.

    A row that is no JSON object with the keys `keys` is left out, with a warning that names the file
    and the line. An incomplete last line, which a killed program has left, is ignored.
    """
    return [row for _, row in numbered_json_lines(path, *keys)]


def numbered_json_lines(path: epath.Path, *keys: str) -> list[tuple[int, dict[str, Any]]]:
    """Returns the rows that `read_json_lines` does, each with the number of its line, from 1."""
    return [(number, row) for number, _, row in _lines(path, keys) if row is not None]


def drop_json_lines(
    path: epath.Path, is_unwanted: Callable[[dict[str, Any]], bool], *keys: str
) -> None:
    """Removes the rows that `is_unwanted` from a file of JSON lines, if it exists.

    What `read_json_lines` would leave out stays in the file, but for an incomplete last line.
    """
    if path.exists():
        lines = _lines(path, keys)
        kept = [line for _, line, row in lines if row is None or not is_unwanted(row)]
        write_bytes(path, b''.join(line + NEWLINE for line in kept))


def read_json(
    path: epath.Path, remedy: str, parse: Callable[[Any], Any] = lambda value: value
) -> Any:
    """Returns `parse` of the JSON value that a file holds.

    Raises UserError if the file is no JSON, or if `parse` cannot make anything of it. The error names
    the file, the line and what is wrong, and says what to do: `remedy`.
    """
    data = path.read_bytes()
    try:
        value = json.loads(data.decode())
        return parse(unsealed(value) if isinstance(value, dict) else value)
    except UserError:
        raise
    except json.JSONDecodeError as error:
        place, reason = f', line {error.lineno},', error.msg
    except UnicodeDecodeError as error:
        place, reason = f', line {data.count(NEWLINE, 0, error.start) + 1},', 'no text'
    except KeyError as error:
        place, reason = '', f'it lacks {error}'
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        place, reason = '', str(error)
    raise UserError(f'{path}{place} is damaged ({reason}): {remedy}')


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a JSON object with its checksum."""
    return {**value, CRC32: _crc32(value)}


def unsealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a JSON object without its checksum. Raises ValueError if that is of other content."""
    rest = {key: item for key, item in value.items() if key != CRC32}
    if CRC32 in value and value[CRC32] != _crc32(rest):
        raise ValueError(f'not what was written; if you have changed it, remove its {CRC32!r}')
    return rest


def _crc32(value: Mapping[str, Any]) -> str:
    """Returns the checksum of a JSON object, which is the same when it has been written and read."""
    return f'{zlib.crc32(json.dumps(value).encode()):08x}'


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


def _lines(
    path: epath.Path, keys: Sequence[str]
) -> Iterator[tuple[int, bytes, dict[str, Any] | None]]:
    """Yields the number, the text and the row of each line; None as the row of a damaged one.

    Warns of the damaged ones. Blank lines and an incomplete last one are passed over.
    """
    data = path.read_bytes() if path.exists() else b''
    kept, _ = _complete(data)
    for number, line in enumerate(data[:kept].split(NEWLINE), 1):
        if not line.strip():
            continue
        row = None
        try:
            row = _row(line, keys)
        except ValueError as error:
            reason = getattr(error, 'msg', str(error))  # without the place in the line
            warnings.warn(
                f'{path}, line {number} is damaged and left out ({reason}); mend it or delete it',
                stacklevel=2,
            )
        yield number, line, row


def _row(line: bytes, keys: Sequence[str]) -> dict[str, Any]:
    """Returns the row in a line. Raises ValueError if it is no JSON object that has the keys."""
    row = json.loads(line.decode())
    if not isinstance(row, dict):
        raise ValueError('no JSON object')
    row = unsealed(row)
    missing = [key for key in keys if key not in row]
    if missing:
        raise ValueError(f'it lacks {missing[0]!r}')
    return row


def _complete(data: bytes) -> tuple[int, str]:
    """Returns how many bytes of JSON lines are complete, and what must stand before a new line.

    That is a newline if the last line lacks nothing else.
    """
    end = data.rfind(NEWLINE) + 1
    try:
        json.JSONDecoder().raw_decode(data[end:].decode(errors='replace'))  # whatever is behind it
    except ValueError:
        return end, ''
    return len(data), '\n'


def _append(file: int, line: bytes, path: epath.Path) -> None:
    """Appends a line to a file of JSON lines, by its descriptor."""
    before = os.lseek(file, 0, os.SEEK_END)
    if before and os.pread(file, 1, before - 1) != NEWLINE:
        before, newline = _complete(os.pread(file, before, 0))
        os.ftruncate(file, before)
        line = newline.encode() + line
    try:
        while line:
            line = line[os.write(file, line) :]
    except OSError as error:
        os.ftruncate(file, before)
        error.filename = str(path)
        raise
