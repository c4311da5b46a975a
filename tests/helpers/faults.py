"""Damage to files, as a failing disk makes it."""

import contextlib
import pathlib
import resource
from collections.abc import Iterator

import numpy as np


def files_in(folder: pathlib.Path) -> list[pathlib.Path]:
    """All files under a folder, in one order."""
    return sorted(path for path in folder.rglob('*') if path.is_file())


def flip_bytes(path: pathlib.Path, seed: int, count: int = 8) -> None:
    """Gives `count` random bytes of a file other values; one byte may be drawn twice."""
    content, rng = bytearray(path.read_bytes()), np.random.default_rng(seed)
    for place in rng.integers(len(content), size=count):
        content[place] ^= int(rng.integers(1, 256))
    path.write_bytes(content)


def weights_file(item: pathlib.Path) -> pathlib.Path:
    """Of the item of a step with large arrays: the file that they are in."""
    return max(item.glob('ocdbt.process_*/d/*'), key=lambda path: path.stat().st_size)


def damage_weights(item: pathlib.Path) -> None:
    """Flips bytes in all files that may hold arrays of the item of a step, or of a part of it.

    Small arrays are in other files than large ones, and much of some of the files is never read.
    """
    for path in item.rglob('d/*'):
        flip_bytes(path, seed=0, count=64)


@contextlib.contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """A context in which no file can grow beyond `size` bytes, as if the disk were full then."""
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, unlimited[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
