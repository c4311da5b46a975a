"""Readers of what `prepare` takes: IDX files, CIFAR-10's python archive, a folder or zip of images.

`read(path, size)` finds the format from the content and checks all of it but the pixels of image
files, which are decoded as they are written. Nothing in a file is ever run.
"""

import pathlib
import tarfile
from collections.abc import Iterator

import numpy as np

from cm_jax.data import images
from cm_jax.data.readers import cifar10, idx, image_files
from cm_jax.data.readers.found import LEGAL, Found, damage_is_one_line
from cm_jax.errors import UserError


def read(path: pathlib.Path, size: int = 0) -> Found:
    """Reads `path` in the format its content shows; `size` > 0 crops and resizes to a square.

    Raises UserError where the format is none of LEGAL, and where a file is damaged.
    """
    if size < 0:
        raise UserError(
            f'size {size} is negative; give the pixels of a side, or 0 to keep the size'
        )
    if not path.exists():
        raise UserError(f'{path} does not exist; legal: {LEGAL}')
    if path.is_dir():
        names = {entry.name for entry in path.iterdir()}
        if any(idx.FILE_NAME.fullmatch(name) for name in names):
            return _resized(idx.read(path), size)
        if cifar10.FOLDER in names:
            return read(path / cifar10.FOLDER, size)
        if not names.isdisjoint(cifar10.BATCHES['train']):
            return _resized(cifar10.read_folder(path), size)
        return image_files.read_folder(path, size)
    with path.open('rb') as file:
        magic = file.read(4)
    if magic.startswith(b'PK'):
        return image_files.read_zip(path, size)
    if idx.FILE_NAME.fullmatch(path.name):
        raise UserError(f'{path} is one file of four; give the folder that holds them')
    with damage_is_one_line(path):
        is_archive = tarfile.is_tarfile(path)
    if is_archive:
        return _resized(cifar10.read_archive(path), size)
    raise UserError(f'{path} has an unknown format; legal: {LEGAL}')


def _resized(found: Found, size: int) -> Found:
    """The same examples, centre-cropped and resized; size 0 keeps them as they are."""
    if not size:
        return found

    def examples(split: str) -> Iterator[tuple[np.ndarray, int]]:
        for image, label in found.examples(split):
            yield images.resized(image, size), label

    return found._replace(image_shape=(size, size, found.image_shape[-1]), examples=examples)
