"""IDX files, the format of MNIST and its kin: four files, each gzipped or not."""

import gzip
import math
import pathlib
import re
import struct

import numpy as np

from cm_jax.data.readers.found import Found, damage_is_one_line, in_memory
from cm_jax.errors import UserError
from cm_jax.files import sha256

FILE_NAME = re.compile(r'(train|t10k|test)-(images|labels)[-.]idx[13]-ubyte(\.gz)?')


def _array(path: pathlib.Path, ndim: int) -> np.ndarray:
    """The uint8 array in an IDX file: 0, 0, 8 (uint8), ndim; ndim big-endian sizes; the bytes."""
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


def read(path: pathlib.Path) -> Found:
    """Reads the splits 'train' and 'test' (t10k), or the one that is there, from a folder."""
    found: dict[tuple[str, str], pathlib.Path] = {}
    for entry in sorted(path.iterdir()):  # a file comes before its .gz and wins
        if match := FILE_NAME.fullmatch(entry.name):
            split = 'train' if match[1] == 'train' else 'test'
            found.setdefault((split, match[2]), entry)
    splits = {}
    for split in ('train', 'test'):
        kinds = [kind for kind in ('images', 'labels') if (split, kind) in found]
        if len(kinds) == 1:
            raise UserError(
                f'{path} has the {kinds[0]} of {split!r} alone; images and labels needed'
            )
        if not kinds:
            continue
        pixels = _array(found[split, 'images'], 3)[..., None]
        labels = _array(found[split, 'labels'], 1)
        if len(pixels) != len(labels):
            raise UserError(f'{path}: {len(pixels):,} images, {len(labels):,} labels in {split!r}')
        splits[split] = (pixels, labels)
    shapes = {pixels.shape[1:] for pixels, _ in splits.values()}
    if len(shapes) > 1:
        raise UserError(f'{path}: the splits differ in image shape: {sorted(shapes)}')
    num_classes = max(int(labels.max()) for _, labels in splits.values()) + 1
    files = {file.name: sha256(file) for file in found.values()}
    return in_memory('idx', files, tuple(map(str, range(num_classes))), splits)
