"""Readers of what `prepare` takes: IDX files, CIFAR-10's python archive, a folder or zip of images.

`read(path, size)` recognises the format by the content. It checks everything before it returns,
except the pixels of image files, which are decoded only when they are written. Nothing that a file
contains is ever executed, and what a file declares takes no memory before it is compared with a bound.
"""

import pathlib
from collections.abc import Iterator

import numpy as np

from cm_jax.data import images
from cm_jax.data.readers import cifar10, idx, image_files
from cm_jax.data.readers.contents import LEGAL, Contents
from cm_jax.errors import UserError


def read(path: pathlib.Path, size: int = 0, crop: str = images.DEFAULT_CROP) -> Contents:
    """Returns the contents of `path`, in whichever of the formats LEGAL it is.

    With `size` > 0 each image is cropped and resized to a square of `size` pixels a side, by the rule
    `crop`, a key of images.CROPS.
    Raises UserError if the path does not exist, the format is unknown, a file is damaged or declares
    more than a bound allows, or `size` is negative or over images.MAX_SIZE.
    """
    if not 0 <= size <= images.MAX_SIZE:
        raise UserError(
            f'--size={size}; legal: 1 to {images.MAX_SIZE} pixels a side, or 0 to keep the size'
        )
    if not path.exists():
        raise UserError(f'{path} does not exist; legal: {LEGAL}')
    if path.is_dir():
        names = {entry.name for entry in path.iterdir()}
        if any(idx.FILE_NAME.fullmatch(name) for name in names):
            return _resized(idx.read(path), size, crop)
        if cifar10.FOLDER in names:
            return read(path / cifar10.FOLDER, size, crop)
        if not names.isdisjoint(cifar10.BATCHES['train']):
            return _resized(cifar10.read_folder(path), size, crop)
        return image_files.read_folder(path, size, crop)
    with path.open('rb') as file:
        magic = file.read(4)
    if magic.startswith(b'PK'):
        return image_files.read_zip(path, size, crop)
    if idx.FILE_NAME.fullmatch(path.name):
        raise UserError(
            f'{path} is one of the four files of an IDX data set; give the folder that holds them'
        )
    if cifar10.is_archive(path):
        return _resized(cifar10.read_archive(path), size, crop)
    raise UserError(f'{path} has an unknown format; legal: {LEGAL}')


def _resized(contents: Contents, size: int, crop: str) -> Contents:
    """Returns the contents with images cropped and resized, or as they are for size 0."""
    if not size:
        return contents

    def examples(split: str) -> Iterator[tuple[np.ndarray, int]]:
        for image, label in contents.examples(split):
            yield images.resized(image, size, crop), label

    return contents._replace(image_shape=(size, size, contents.image_shape[-1]), examples=examples)
