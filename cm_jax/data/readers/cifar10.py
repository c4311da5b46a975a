"""CIFAR-10's python archive or the folder unpacked from it: pickles, read without running them."""

import hashlib
import io
import pathlib
import pickle
import tarfile
from typing import Any

import numpy as np

from cm_jax.data.readers.found import LEGAL, Found, damage_is_one_line, in_memory
from cm_jax.errors import UserError

FOLDER = 'cifar-10-batches-py'
BATCHES = {
    'train': [f'data_batch_{number}' for number in range(1, 6)],
    'test': ['test_batch'],
}
NAMES = [name for names in BATCHES.values() for name in names]
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


class _Array:
    """Stands in for a NumPy array while a pickle is read: it keeps what the pickle says."""

    shape, dtype, fortran, data = (), None, False, b''

    def __init__(self, *_: Any):
        pass

    def __setstate__(self, state: tuple) -> None:
        _, self.shape, self.dtype, self.fortran, self.data = state


class _Dtype:
    """Stands in for a NumPy dtype, as `_Array` does for an array."""

    def __init__(self, name: str | bytes, *_: Any):
        self.name = name.decode() if isinstance(name, bytes) else name

    def __setstate__(self, state: tuple) -> None:
        pass


class _Unpickler(pickle.Unpickler):
    """Reads containers, numbers, strings and arrays; a pickle that names anything else is refused.

    The stand-ins take what NumPy's own functions would: nothing outside this file is ever called.
    """

    STAND_INS = {  # noqa: RUF012
        ('numpy.core.multiarray', '_reconstruct'): _Array,
        ('numpy._core.multiarray', '_reconstruct'): _Array,
        ('numpy', 'ndarray'): _Array,
        ('numpy', 'dtype'): _Dtype,
    }

    def find_class(self, module: str, name: str) -> type:
        if (module, name) not in self.STAND_INS:
            raise UserError(
                f'it asks for {module}.{name}; legal: arrays, lists, dicts, numbers, text'
            )
        return self.STAND_INS[module, name]


def _batch(content: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    """One batch file: (images uint8 [n,32,32,3], labels [n]); raises UserError on anything odd."""
    try:
        batch = _Unpickler(io.BytesIO(content), encoding='bytes').load()
        batch = {key.decode() if isinstance(key, bytes) else key: v for key, v in batch.items()}
        data, labels = batch['data'], batch['labels']
        flat = np.frombuffer(data.data, np.dtype(data.dtype.name))
        flat = flat.reshape(data.shape, order='F' if data.fortran else 'C')
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


def read_folder(path: pathlib.Path) -> Found:
    """Reads the unpacked folder."""
    with damage_is_one_line(path):
        return _read(path, {n: (path / n).read_bytes() for n in NAMES if (path / n).is_file()})


def read_archive(path: pathlib.Path) -> Found:
    """Reads the tar archive, in memory: nothing is unpacked to disk."""
    batches = {}
    with damage_is_one_line(path), tarfile.open(path) as archive:
        for member in archive:
            folder, _, name = member.name.removeprefix('./').partition('/')
            if folder == FOLDER and name in NAMES and member.isfile():
                batches[name] = archive.extractfile(member).read()
    return _read(path, batches)


def _read(path: pathlib.Path, batches: dict[str, bytes]) -> Found:
    missing = [name for name in NAMES if name not in batches]
    if missing:
        raise UserError(f'{path} lacks {FOLDER}/{missing[0]}; legal: {LEGAL}')
    splits = {}
    for split, names in BATCHES.items():
        parts = [_batch(batches[name], f'{path}, {name}') for name in names]
        splits[split] = tuple(np.concatenate(arrays) for arrays in zip(*parts))
    files = {name: hashlib.sha256(content).hexdigest() for name, content in batches.items()}
    return in_memory('cifar10', files, CLASSES, splits)
