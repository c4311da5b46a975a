"""Reads weights: `read_tensors(path)` knows every format that the papers' weights are published in.

The format is recognised by the content, not by the file's name, except for a pickle of protocol 0 or
1, which only its suffix reveals. No file can run code: pickles are read by weights/pickles.py, npz
files with allow_pickle=False, flax's checkpoints by weights/flax_files.py. Nor can a small file take
much memory: what it declares is compared with what it has, and with bounds, which a refusal names.
"""

import json
import math
import pathlib
import struct
import zipfile
from collections.abc import Callable
from typing import IO, Any

import numpy as np

from cm_jax.data.readers import archives
from cm_jax.data.readers.inert import PLAIN_KINDS, read_exactly
from cm_jax.errors import UserError, check_name, damage_is_one_line, shown
from cm_jax.weights import flax_files, torch_files
from cm_jax.weights.collect import collect
from cm_jax.weights.pickles import unpickle
from cm_jax.weights.write import DTYPES

LEGAL = '.pkl of EDM or EDM2, .pt or .pth of torch.save, .safetensors, .npz, a checkpoint of flax'
MAX_HEADER = 1 << 24  # bytes, of a safetensors file; each tensor takes about 100 of them
MAX_STRINGS = 10_000  # in an array of an npz file
HEADERS: dict[tuple[int, int], Callable] = {  # version of an array in an npz file -> its reader
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
PICKLE = b'\x80'  # the first byte of a pickle of protocol 2 or later
PICKLE_SUFFIXES = ('.pkl', '.pickle', '.pt', '.pth', '.bin')
ZIP = b'PK\x03\x04'


def read_tensors(path: str | pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Returns (tensors, metadata) of a weights file.

    A tensor's name is its path in the file, joined by dots: 'ema.model.map_layer0.weight' for an EDM
    snapshot. The arrays are read-only and keep the file's dtypes. The metadata are the
    `format` and the strings and numbers of the file, under their own names.

    Raises UserError, in one line, if the file is missing, of an unknown format, damaged or truncated,
    holds no tensors, asks for anything to be called, or would take more memory than a bound allows.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(f'no weights file {path}')
    with path.open('rb') as file:
        start = file.read(len(torch_files.LEGACY_START))
        file.seek(0)
        with damage_is_one_line(path):
            try:
                name, (tensors, metadata) = _read(file, start, path.suffix)
            except UserError as error:
                asks = str(error).partition('it asks for ')[2]
                if asks:
                    raise UserError(f'refused: {path} asks for {asks}') from None
                raise UserError(f'{path}: {error}') from None
    if not tensors:
        raise UserError(f'{path} ({name}) holds no tensors')
    return tensors, metadata | {'format': name}


def _read(file: IO[bytes], start: bytes, suffix: str) -> tuple[str, tuple[dict, dict]]:
    """Returns (format, (tensors, metadata)) of a file that begins with `start`."""
    if start.startswith(ZIP):
        with zipfile.ZipFile(file) as archive:
            if any(name.endswith('.npy') for name in archive.namelist()):
                return 'npz', _read_npz(archive)
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


def _read_npz(archive: zipfile.ZipFile) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Returns (tensors, metadata): arrays of strings, such as a fixture's config_json, are metadata."""
    archives.check_total(archive)
    tensors, metadata = {}, {}
    for entry in archive.namelist():
        value, name = _read_npy(archive, entry), entry.removesuffix('.npy')
        if value.dtype.kind == 'U':
            metadata[name] = value.tolist()
        else:
            tensors[name] = value
    return tensors, metadata


def _read_npy(archive: zipfile.ZipFile, entry: str) -> np.ndarray:
    """Returns an array of an npz file.

    Raises UserError if its elements are neither real numbers nor strings, or if it has no strings or
    too many, and ValueError if it is not as large as its entry.
    """
    name = shown(entry.removesuffix('.npy'))
    with archives.opened(archive, entry) as file:
        version = np.lib.format.read_magic(file)
        if version not in HEADERS:
            raise ValueError(f'{name} is of version {version}; legal: {[*HEADERS]}')
        shape, _, dtype = HEADERS[version](file)
        count = math.prod(shape)
        size = file.tell() + count * dtype.itemsize
    if dtype.kind not in f'{PLAIN_KINDS}U':
        raise UserError(f'{name} is of {shown(dtype)}; legal: real numbers and strings')
    if size != archive.getinfo(entry).file_size or not dtype.itemsize:
        raise ValueError(f'{name} is not as large as its header of {dtype} {shape} says')
    if dtype.kind == 'U' and not 0 < count <= MAX_STRINGS:
        raise UserError(f'{name} has {count:,} strings; legal: 1 to {MAX_STRINGS:,}')
    with archives.opened(archive, entry) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _read_safetensors(file: IO[bytes]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Returns (tensors, metadata).

    Raises UserError if the header is too long or the tensors do not lie one behind the other, as the
    format demands, and ValueError or EOFError if the file is damaged otherwise.
    """
    (length,) = struct.unpack('<Q', read_exactly(file, 8))
    if length > MAX_HEADER:
        raise UserError(f'its header has {length:,} bytes; legal: at most {MAX_HEADER:,}')
    header = json.loads(read_exactly(file, length))
    metadata = header.pop('__metadata__', {})
    if not all(isinstance(value, str) for value in metadata.values()):
        raise UserError('its metadata are not all texts')
    data = memoryview(file.read())
    tensors, last = {}, 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]['data_offsets']):
        begin, end = entry['data_offsets']
        check_name(f'dtype of {shown(name)}', entry['dtype'], DTYPES)
        dtype, shape = DTYPES[entry['dtype']], tuple(entry['shape'])
        if begin != last:
            what = 'overlaps the tensor before it' if begin < last else 'leaves a gap before it'
            raise UserError(f'{shown(name)} begins at byte {begin}, not {last}: it {what}')
        if end < begin or end - begin != dtype.itemsize * math.prod(shape):
            raise ValueError(f'{name} of shape {shape} and dtype {dtype} has {end - begin} bytes')
        if end > len(data):
            raise EOFError(f'{name} ends at byte {end} of {len(data)}')
        tensors[name] = np.frombuffer(data[begin:end], dtype).reshape(shape)
        last = end
    if last != len(data):
        raise UserError(f'its tensors end at byte {last} of {len(data)}')
    return tensors, metadata
