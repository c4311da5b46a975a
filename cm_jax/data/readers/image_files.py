"""Reads a folder or zip of image files, by the rules of data/images.py for layout and colour."""

import hashlib
import io
import pathlib
import zipfile
from collections.abc import Callable, Iterator

import numpy as np

from cm_jax.data import images
from cm_jax.data.readers import archives
from cm_jax.data.readers.contents import LEGAL, Contents
from cm_jax.data.sources import folder
from cm_jax.errors import UserError, begins_with, damage_is_one_line, shown
from cm_jax.files import sha256
from cm_jax.terminal import IMAGES, progress


def _read(
    path: pathlib.Path, names: list[str], content: Callable[[str], bytes], size: int, crop: str
) -> Contents:
    """Returns the contents of the folder or zip `path`, whose files have the relative names `names`.

    `content(name)` returns the bytes of a file. With a `size` images may differ in size; each is
    cropped and resized to a square of `size` pixels a side, by the rule `crop`. The one entry of
    `files` is the sha256 of the zip or, for a folder, of the names and sha256 of all its images in
    order.
    """
    layout = images.layout(names, str(path))
    image_names = [name for entries in layout.splits.values() for name, _ in entries]
    digest = hashlib.sha256()
    headers = []
    for name in progress(image_names, len(image_names), 'reading', IMAGES):
        data = content(name)
        digest.update(name.encode() + hashlib.sha256(data).digest())
        headers.append(images.header(io.BytesIO(data), f'{path}, {name}'))
    if size:
        shape = (size, size, 3 if any(header.colour for header in headers) else 1)
    else:
        shape = images.common_shape(zip(image_names, headers))

    def examples(split: str) -> Iterator[tuple[np.ndarray, int]]:
        for name, label in layout.splits[split]:
            file = io.BytesIO(content(name))
            yield images.pixels(file, f'{path}, {name}', shape[-1], size, crop), label

    files = {path.name: sha256(path) if path.is_file() else digest.hexdigest()}
    return Contents(
        kind='images',
        files=files,
        image_shape=shape,
        class_names=layout.class_names,
        counts={split: len(entries) for split, entries in layout.splits.items()},
        examples=examples,
    )


def read_folder(path: pathlib.Path, size: int, crop: str) -> Contents:
    """Returns the contents of a folder of images, resized by the rule `crop` where `size` is not 0.

    Raises UserError if there is no image, if one is unreadable, if the layout is ambiguous, or if
    the images differ in size and `size` is 0.
    """
    names = folder.file_names(path)
    if not any(map(images.is_image, names)):
        raise UserError(f'{path} holds no image, IDX or CIFAR-10 file; legal: {LEGAL}')

    def content(name: str) -> bytes:
        file = path / name
        with damage_is_one_line(file):
            if not file.is_file():
                raise UserError(f'{file} is no regular file')
            if file.stat().st_size > images.MAX_BYTES:
                raise UserError(
                    f'{file} has {file.stat().st_size:,} bytes; legal: at most {images.MAX_BYTES:,}'
                )
            return file.read_bytes()

    return _read(path, names, content, size, crop)


def read_zip(path: pathlib.Path, size: int, crop: str) -> Contents:
    """Returns the contents of a zip of images, as `read_folder` does for a folder.

    Raises UserError as well if a name leads out of the archive or is there twice.
    """
    with damage_is_one_line(path, 'is truncated, damaged or encrypted'):
        archive = zipfile.ZipFile(path)
    names, seen = archive.namelist(), set()
    for name in names:
        if name.startswith('/') or '..' in name.split('/'):
            raise UserError(f'{path} is refused: its file {shown(name)} leads out of the archive')
        if name in seen and images.is_image(name):
            raise UserError(f'{path} holds two files {shown(name)}; legal: one of each name')
        seen.add(name)

    def content(name: str) -> bytes:
        with damage_is_one_line(path, 'is truncated, damaged or encrypted'), begins_with(path):
            return archives.content(archive, name, images.MAX_BYTES)

    return _read(path, names, content, size, crop)
