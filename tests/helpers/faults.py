"""Damage to files, as a failing disk makes it."""

import pathlib

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
    """Of the item of a step: the largest of the files with its arrays."""
    return max(item.glob('ocdbt.process_*/d/*'), key=lambda path: path.stat().st_size)
