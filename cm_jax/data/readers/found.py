"""What a reader gives, and what the readers share."""

import contextlib
import pathlib
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from cm_jax.errors import UserError

LEGAL = (
    'a folder of IDX files (train-images-idx3-ubyte[.gz], ...), cifar-10-python.tar.gz or the '
    'folder unpacked from it, a folder of images, a zip of images'
)
DAMAGED = (
    EOFError,
    OSError,
    RuntimeError,  # an encrypted zip
    struct.error,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)


class Found(NamedTuple):
    """What was read: `examples(split)` yields (uint8 [H,W,C], label) in the input's own order.

    `files` maps what was read to its sha256; `class_names` is empty where there are no labels.
    """

    kind: str
    files: dict[str, str]
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    counts: dict[str, int]
    examples: Callable[[str], Iterator[tuple[np.ndarray, int]]]


@contextlib.contextmanager
def damage_is_one_line(path: pathlib.Path) -> Iterator[None]:
    """Turns what reading a damaged file raises into a UserError."""
    try:
        yield
    except DAMAGED as error:
        raise UserError(f'{path} is truncated, damaged or encrypted: {error}') from error


def in_memory(
    kind: str,
    files: dict[str, str],
    class_names: tuple[str, ...],
    splits: dict[str, tuple[np.ndarray, np.ndarray]],
) -> Found:
    """The Found of splits held as (images uint8 [n,H,W,C], labels [n])."""
    shape = next(iter(splits.values()))[0].shape[1:]
    counts = {split: len(labels) for split, (_, labels) in splits.items()}

    def examples(split: str) -> Iterator[tuple[np.ndarray, int]]:
        pixels, labels = splits[split]
        return ((image, int(label)) for image, label in zip(pixels, labels))

    return Found(kind, files, tuple(shape), class_names, counts, examples)
