"""Reads IDX files, the format of MNIST and similar data sets: four files, gzipped or not."""

import gzip
import math
import pathlib
import re
import struct

import numpy as np

from cm_jax.data.readers.contents import Contents, damage_is_one_line, in_memory
from cm_jax.errors import UserError
from cm_jax.files import sha256

FILE_NAME = re.compile(r'(train|t10k|test)-(images|labels)[-.]idx[13]-ubyte(\.gz)?')


def _array(path: pathlib.Path, ndim: int) -> np.ndarray:
    """Returns the uint8 array of `ndim` dimensions that an IDX file holds.

    The file consists of the bytes 0, 0, 8 (the code of uint8) and `ndim`, then `ndim` sizes as
    big-endian uint32, then the values. Raises UserError if the file is anything else.
    """
    with damage_is_one_line(path):
        content = path.read_bytes()
        content = gzip.decompress(content) if content.startswith(b'\x1f\x8b') else content
        if content[:4] != bytes((0, 0, 8, ndim)):
            raise UserError(
                f'{path} begins with {content[:4].hex()}; IDX bytes in {ndim} dimensions '
                f'begin with 000008{ndim:02x}'
            )
        sizes = struct.unpack_from(f'>{ndim}I', content, 4)
    start = 4 + 4 * ndim
    expected = math.prod(sizes)
    if len(content) - start != expected or not expected:
        raise UserError(
            f'{path} is truncated, padded or empty: it holds {len(content) - start:,} values, its '
            f'header says {expected:,}'
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(sizes)


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
