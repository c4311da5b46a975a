"""Reads CIFAR-10's python archive, or the folder unpacked from it.

The batches are pickles; they are read by data/readers/inert.py, which executes nothing in them.
"""

import hashlib
import io
import pathlib
import tarfile

import numpy as np

from cm_jax.data.readers import inert
from cm_jax.data.readers.contents import LEGAL, Contents, damage_is_one_line, in_memory
from cm_jax.errors import UserError

FOLDER = 'cifar-10-batches-py'
BATCHES = {
    'train': [f'data_batch_{number}' for number in range(1, 6)],
    'test': ['test_batch'],
}
NAMES = [name for names in BATCHES.values() for name in names]
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


def _batch(content: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns (images uint8 [n,32,32,3], labels [n]) of one batch file with the bytes `content`.

    Raises UserError, which begins with `where`, if the bytes are anything but such a batch.
    """
    try:
        file, table = io.BytesIO(content), inert.numpy_stand_ins()
        batch = inert.Unpickler(file, table, LEGAL_CONTENT, encoding='bytes').load()
        batch = {
            key.decode() if isinstance(key, bytes) else key: value for key, value in batch.items()
        }
        data, labels = batch['data'], batch['labels']
        flat = data.value()
        labels = np.array(labels)
    except UserError as error:
        raise UserError(f'{where} is refused: {error}') from error
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise UserError(f'{where} is no CIFAR-10 batch, or is truncated: {error!r}') from error
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

    Raises UserError if the archive is damaged or lacks a batch.
    """
    batches = {}
    with damage_is_one_line(path), tarfile.open(path) as archive:
        for member in archive:
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
