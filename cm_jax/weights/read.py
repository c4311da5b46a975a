"""Reads weights: `read_tensors(path)` knows every format that the papers' weights are published in.

The format is recognised by the content, not by the file's name, except for a pickle of protocol 0 or
1, which only its suffix reveals. No file can run code: pickles are read by weights/pickles.py, npz
files with allow_pickle=False, flax's checkpoints by weights/flax_files.py.
"""

import json
import math
import pathlib
import struct
import zipfile
from typing import IO, Any

import numpy as np

from cm_jax.errors import UserError
from cm_jax.weights import flax_files, torch_files
from cm_jax.weights.collect import collect
from cm_jax.weights.pickles import unpickle
from cm_jax.weights.write import DTYPES

LEGAL = '.pkl of EDM or EDM2, .pt or .pth of torch.save, .safetensors, .npz, a checkpoint of flax'
MAX_HEADER = 100_000_000  # bytes, of a safetensors file: the format's own limit
PICKLE = b'\x80'  # the first byte of a pickle of protocol 2 or later
PICKLE_SUFFIXES = ('.pkl', '.pickle', '.pt', '.pth', '.bin')
ZIP = b'PK\x03\x04'


def read_tensors(path: str | pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Returns (tensors, metadata) of a weights file.

    A tensor's name is its path in the file, joined by dots: 'ema.model.map_layer0.weight' for an EDM
    snapshot. The arrays are read-only and keep the file's dtypes. The metadata are the
    `format` and the strings and numbers of the file, under their own names.

    Raises UserError, in one line, if the file is missing, of an unknown format, damaged or truncated,
    holds no tensors, or asks for anything to be called.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(f'no weights file {path}')
    with path.open('rb') as file:
        start = file.read(len(torch_files.LEGACY_START))
        file.seek(0)
        try:
            name, (tensors, metadata) = _read(file, start, path.suffix)
        except UserError as error:
            asks = str(error).partition('it asks for ')[2]
            if asks:
                raise UserError(f'refused: {path} asks for {asks}') from None
            raise UserError(f'{path}: {error}') from None
        except Exception as error:  # a damaged pickle can raise nearly anything
            problem = f'{type(error).__name__}: {error}'
            raise UserError(f'{path} is truncated or damaged ({problem})') from error
    if not tensors:
        raise UserError(f'{path} ({name}) holds no tensors')
    return tensors, metadata | {'format': name}


def _read(file: IO[bytes], start: bytes, suffix: str) -> tuple[str, tuple[dict, dict]]:
    """Returns (format, (tensors, metadata)) of a file that begins with `start`."""
    if start.startswith(ZIP):
        with zipfile.ZipFile(file) as archive:
            if any(name.endswith('.npy') for name in archive.namelist()):
                return 'npz', _read_npz(file)
            return 'torch zip', collect(torch_files.load_zip(archive))
    if start.startswith(torch_files.LEGACY_START):
        return 'torch legacy', collect(torch_files.load_legacy(file))
    if start[8:9] == b'{':
        return 'safetensors', _read_safetensors(file)
    if flax_files.is_flax(start):
        return 'flax', collect(flax_files.load(file))
    if start.startswith(PICKLE) or suffix in PICKLE_SUFFIXES:
        return 'pickle', collect(unpickle(file, torch_files.storage_from_bytes))
    raise UserError(f'it is no weights file that is known; legal: {LEGAL}')


def _read_npz(file: IO[bytes]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Returns (tensors, metadata): arrays of strings, such as a fixture's config_json, are metadata."""
    file.seek(0)
    tensors, metadata = {}, {}
    with np.load(file, allow_pickle=False) as archive:
        for name in archive.files:
            value = archive[name]
            if value.dtype.kind == 'U':
                metadata[name] = value.tolist()
            else:
                tensors[name] = value
    return tensors, metadata


def _read_safetensors(file: IO[bytes]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Returns (tensors, metadata). Raises ValueError or EOFError if the file is damaged."""
    (length,) = struct.unpack('<Q', file.read(8))
    if length > MAX_HEADER:
        raise ValueError(f'its header has {length} bytes; legal: at most {MAX_HEADER}')
    text = file.read(length)
    if len(text) != length:
        raise EOFError('the header ends early')
    header = json.loads(text)
    metadata = header.pop('__metadata__', {})
    data = memoryview(file.read())
    tensors = {}
    for name, entry in header.items():
        begin, end = entry['data_offsets']
        dtype, shape = DTYPES[entry['dtype']], tuple(entry['shape'])
        if not 0 <= begin <= end or end - begin != dtype.itemsize * math.prod(shape):
            raise ValueError(f'{name} of shape {shape} and dtype {dtype} has {end - begin} bytes')
        if end > len(data):
            raise EOFError(f'{name} ends at byte {end} of {len(data)}')
        tensors[name] = np.frombuffer(data[begin:end], dtype).reshape(shape)
    return tensors, metadata
