"""Reads CIFAR-10's python archive, or the folder unpacked from it.

The batches are pickles; they are read by data/readers/inert.py, which executes nothing in them.
"""

import hashlib
import io
import pathlib
import tarfile
from typing import Any, Self

import numpy as np

from cm_jax.data.readers import inert
from cm_jax.data.readers.contents import LEGAL, Contents, in_memory
from cm_jax.errors import UserError, begins_with, damage_is_one_line, shown

FOLDER = 'cifar-10-batches-py'
BATCHES = {
    'train': [f'data_batch_{number}' for number in range(1, 6)],
    'test': ['test_batch'],
}
NAMES = [name for names in BATCHES.values() for name in names]
MAX_MEMBER = 1 << 25  # bytes of a file in the archive; a batch of CIFAR-10 has 31,035,704
LEGAL_CONTENT = 'legal: arrays, lists, dicts, numbers, text'
CLASSES = (
    'airplane',
    'automobile',
    'bird',
    'cat',
    'deer',
    'dog',
    'frog',
    'horse',
    'ship',
    'truck',
)


class _Member(tarfile.TarInfo):
    """A file in a tar archive, or a header of one, which is read whole as soon as it is met."""

    @classmethod
    def frombuf(cls, *arguments: Any) -> Self:
        member = super().frombuf(*arguments)
        _check_member(member)
        return member


def _check_member(member: tarfile.TarInfo) -> None:
    """Raises UserError if a member of an archive declares more than MAX_MEMBER bytes."""
    if member.size > MAX_MEMBER:
        raise UserError(
            f'{shown(member.name)} declares {member.size:,} bytes; legal in an archive of CIFAR-10: at '
            f'most {MAX_MEMBER:,}'
        )


def _opened(path: pathlib.Path) -> tarfile.TarFile:
    """Opens a tar archive, gzipped or not. Raises tarfile.ReadError if it is none."""
    with path.open('rb') as file:
        mode: Any = 'r:gz' if file.read(2) == b'\x1f\x8b' else 'r:'
    return tarfile.open(path, mode, tarinfo=_Member)


def is_archive(path: pathlib.Path) -> bool:
    """Returns whether a file is a tar archive. Raises UserError if it begins with a huge header."""
    with damage_is_one_line(path), begins_with(path):
        try:
            _opened(path).close()
        except tarfile.ReadError:
            return False
    return True


def _batch(content: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns (images uint8 [n,32,32,3], labels [n]) of one batch file with the bytes `content`.

    Raises UserError, which begins with `where`, if the bytes are anything but such a batch.
    """
    with damage_is_one_line(where, 'is no CIFAR-10 batch, or is truncated'):
        try:
            file, table = io.BytesIO(content), inert.numpy_stand_ins()
            batch = inert.Unpickler(file, table, LEGAL_CONTENT, encoding='bytes').load()
        except UserError as error:
            raise UserError(f'{where} is refused: {error}') from error
        batch = {
            key.decode() if isinstance(key, bytes) else key: value for key, value in batch.items()
        }
        data, labels = batch['data'], batch['labels']
        if not isinstance(labels, list) or any(type(label) is not int for label in labels):
            raise UserError(f'{where} has labels that are no list of whole numbers')
        flat, labels = data.value(), np.array(labels)
    legal_labels = labels.shape == flat.shape[:1] and labels.dtype.kind == 'i'
    if flat.dtype != np.uint8 or flat.shape[1:] != (3072,) or not len(flat) or not legal_labels:
        raise UserError(f'{where} holds data {flat.dtype} {flat.shape}; wanted uint8 (n, 3072)')
    if labels.min() < 0 or labels.max() > 9:
        raise UserError(f'{where} has labels {labels.min()}..{labels.max()}; legal: 0..9')
    return flat.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels


def read_folder(path: pathlib.Path) -> Contents:
    """Returns the contents of the unpacked folder. Raises UserError if it lacks a batch."""
    with damage_is_one_line(path):
        present = [path / name for name in NAMES if (path / name).is_file()]
        return _read(path, {file.name: file.read_bytes() for file in present})


def read_archive(path: pathlib.Path) -> Contents:
    """Returns the contents of the tar archive, which is read in memory and not unpacked to disk.

    Raises UserError if the archive is damaged, lacks a batch or holds a file of over MAX_MEMBER bytes.
    """
    batches = {}
    with damage_is_one_line(path), begins_with(path), _opened(path) as archive:
        for member in archive:
            _check_member(member)  # once more: a header before it may have changed its size
            folder, _, name = member.name.removeprefix('./').partition('/')
            is_batch = folder == FOLDER and name in NAMES and member.isfile()
            if is_batch and (file := archive.extractfile(member)):
                batches[name] = file.read()
    return _read(path, batches)


def _read(path: pathlib.Path, batches: dict[str, bytes]) -> Contents:
    """Returns the contents of the batch files, given as name -> bytes; see `read_folder`."""
    missing = [name for name in NAMES if name not in batches]
    if missing:
        raise UserError(f'{path} lacks {FOLDER}/{missing[0]}; legal: {LEGAL}')
    splits = {}
    for split, names in BATCHES.items():
        images, labels = zip(*(_batch(batches[name], f'{path}, {name}') for name in names))
        splits[split] = (np.concatenate(images), np.concatenate(labels))
    files = {name: hashlib.sha256(content).hexdigest() for name, content in batches.items()}
    return in_memory('cifar10', files, CLASSES, splits)
