"""A folder or zip of image files; its layout and colour follow the rules of data/images.py."""

import hashlib
import io
import pathlib
import zipfile
from collections.abc import Callable, Iterator

import numpy as np
import tqdm

from cm_jax.data import images
from cm_jax.data.readers.found import LEGAL, Found, damage_is_one_line
from cm_jax.data.sources import folder
from cm_jax.errors import UserError
from cm_jax.files import sha256


def _read(
    path: pathlib.Path, names: list[str], content: Callable[[str], bytes], size: int
) -> Found:
    """The image files `names` of a folder or zip; `content` gives the bytes of one."""
    found = images.layout(names, str(path))
    every = [name for entries in found.splits.values() for name, _ in entries]
    digest = hashlib.sha256()
    headers = []
    for name in tqdm.tqdm(every, desc='reading', unit=' images', disable=None):
        data = content(name)
        digest.update(name.encode() + hashlib.sha256(data).digest())
        headers.append(images.header(io.BytesIO(data), f'{path}, {name}'))
    if size:
        shape = (size, size, 3 if any(header.colour for header in headers) else 1)
    else:
        shape = images.common_shape(zip(every, headers))

    def examples(split: str) -> Iterator[tuple[np.ndarray, int]]:
        for name, label in found.splits[split]:
            file = io.BytesIO(content(name))
            yield images.pixels(file, f'{path}, {name}', shape[-1], size), label

    files = {path.name: sha256(path) if path.is_file() else digest.hexdigest()}
    counts = {split: len(entries) for split, entries in found.splits.items()}
    return Found('images', files, shape, found.class_names, counts, examples)


def read_folder(path: pathlib.Path, size: int) -> Found:
    """Reads a folder of images, of one size or with a `size` to make them so."""
    names = folder.file_names(path)
    if not any(map(images.is_image, names)):
        raise UserError(f'{path} holds no image, IDX or CIFAR-10 file; legal: {LEGAL}')
    return _read(path, names, lambda name: (path / name).read_bytes(), size)


def read_zip(path: pathlib.Path, size: int) -> Found:
    """Reads a zip of images, as `read_folder` does a folder."""
    with damage_is_one_line(path):
        archive = zipfile.ZipFile(path)

    def content(name: str) -> bytes:
        with damage_is_one_line(path):
            return archive.read(name)

    return _read(path, archive.namelist(), content, size)
