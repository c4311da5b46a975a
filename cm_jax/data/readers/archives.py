"""Reads zip archives, whose content may be far larger than they are, in bounded memory.

A zip of a megabyte can hold a gigabyte of zeros, and the sizes that it declares may be wrong. So no
entry is read beyond the size that it declares, and the declared sizes are compared with a bound first.
"""

import os
import zipfile
from typing import IO

from cm_jax.errors import UserError, shown

FREE = 1 << 27  # bytes that any file may hold, however small it is packed
RATIO = 20  # beyond that, what a file may hold, relative to its own size
METHODS = {zipfile.ZIP_STORED: 'stored', zipfile.ZIP_DEFLATED: 'deflated'}


def check_expansion(what: object, content: int, packed: int) -> None:
    """Raises UserError if a file of `packed` bytes holds more than FREE and RATIO times as many.

    `content` is the number of bytes that it declares to hold, and `what` names it.
    """
    legal = max(FREE, RATIO * packed)
    if content > legal:
        raise UserError(
            f'{what} declares {content:,} bytes, packed in {packed:,}; legal: at most {legal:,}'
        )


def check_total(archive: zipfile.ZipFile) -> None:
    """Raises UserError if the entries of an archive declare more in all than `check_expansion` allows.

    It is for archives of which all entries are in memory together.
    """
    assert archive.fp is not None  # of an archive that is open
    declared = sum(entry.file_size for entry in archive.infolist())
    check_expansion('it', declared, archive.fp.seek(0, os.SEEK_END))


def opened(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    """Opens an entry. Raises UserError if it is packed by a method that cannot be read in parts."""
    entry = archive.getinfo(name)
    if entry.compress_type not in METHODS:
        legal = ', '.join(METHODS.values())
        raise UserError(f'its entries are packed by method {entry.compress_type}; legal: {legal}')
    return archive.open(entry)


def content(archive: zipfile.ZipFile, name: str, limit: int | None = None) -> bytes:
    """Returns the bytes of an entry.

    Raises UserError if it declares more than `limit` bytes, and EOFError if it has fewer than declared.
    """
    size = archive.getinfo(name).file_size
    if limit is not None and size > limit:
        raise UserError(f'{shown(name)} declares {size:,} bytes; legal: at most {limit:,}')
    with opened(archive, name) as file:
        data = file.read(size)
    if len(data) != size:
        raise EOFError(f'an entry has {len(data):,} of {size:,} bytes')
    return data
