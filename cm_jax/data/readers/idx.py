"""Reads IDX files, the format of MNIST and similar data sets: four files, gzipped or not."""

import gzip
import math
import os
import pathlib
import re
import struct

import numpy as np

from cm_jax.data.readers.archives import check_expansion
from cm_jax.data.readers.contents import Contents, in_memory
from cm_jax.errors import UserError, damage_is_one_line
from cm_jax.files import sha256

FILE_NAME = re.compile(r'(train|t10k|test)-(images|labels)[-.]idx[13]-ubyte(\.gz)?')


def _array(path: pathlib.Path, ndim: int) -> np.ndarray:
    """Returns the uint8 array of `ndim` dimensions that an IDX file holds.

    The file consists of the bytes 0, 0, 8 (the code of uint8) and `ndim`, then `ndim` sizes as
    big-endian uint32, then the values. Raises UserError if the file is anything else, or declares more
    values than `check_expansion` allows.
    """
    with damage_is_one_line(path), path.open('rb') as raw:
        packed = os.fstat(raw.fileno()).st_size
        gzipped = raw.read(2) == b'\x1f\x8b'
        raw.seek(0)
        file = gzip.GzipFile(fileobj=raw) if gzipped else raw
        magic = file.read(4)
        if magic != bytes((0, 0, 8, ndim)):
            raise UserError(
                f'{path} begins with {magic.hex()}; IDX bytes in {ndim} dimensions '
                f'begin with 000008{ndim:02x}'
            )
        sizes = struct.unpack(f'>{ndim}I', file.read(4 * ndim))
        expected = math.prod(sizes)
        check_expansion(path, expected, packed)
        content = file.read(expected)
        left = bool(file.read(1))
    if len(content) != expected or left or not expected:
        held = f'more than {len(content):,}' if left else f'{len(content):,}'
        raise UserError(
            f'{path} is truncated, padded or empty: it holds {held} values, its header says '
            f'{expected:,}'
        )
    return np.frombuffer(content, np.uint8).reshape(sizes)


def read(path: pathlib.Path) -> Contents:
    """Returns the contents of a folder of IDX files.

    The splits are 'train' and 'test' (whose files are named t10k or test); one of them may be
    missing. Raises UserError if a split has images without labels or labels without images, if
    their numbers differ, if the splits differ in image shape, or if a file is damaged.
    """
    paths: dict[tuple[str, str], pathlib.Path] = {}  # (split, 'images' or 'labels') -> file
    for entry in sorted(path.iterdir()):  # a file sorts before its .gz, so the unzipped one is used
        if match := FILE_NAME.fullmatch(entry.name):
            split = 'train' if match[1] == 'train' else 'test'
            paths.setdefault((split, match[2]), entry)
    splits = {}
    for split in ('train', 'test'):
        kinds = [kind for kind in ('images', 'labels') if (split, kind) in paths]
        if len(kinds) == 1:
            raise UserError(
                f'{path} has the {kinds[0]} of {split!r} alone; images and labels are needed'
            )
        if not kinds:
            continue
        pixels = _array(paths[split, 'images'], 3)[..., None]
        labels = _array(paths[split, 'labels'], 1)
        if len(pixels) != len(labels):
            raise UserError(f'{path}: {len(pixels):,} images, {len(labels):,} labels in {split!r}')
        splits[split] = (pixels, labels)
    shapes = {pixels.shape[1:] for pixels, _ in splits.values()}
    if len(shapes) > 1:
        raise UserError(f'{path}: the splits differ in image shape: {sorted(shapes)}')
    num_classes = max(int(labels.max()) for _, labels in splits.values()) + 1
    files = {file.name: sha256(file) for file in paths.values()}
    return in_memory('idx', files, tuple(map(str, range(num_classes))), splits)
