"""flax's checkpoints (`flax.serialization.to_bytes`), read without flax.

A file is one msgpack value: nested dicts of numbers, strings and arrays. An array is an extension of
code 1 whose content is the msgpack list (shape, dtype, bytes in C order); a NumPy scalar has the code 3
and the same content. An array of more than 2^30 bytes is a dict of its flat pieces, which has the key
`__msgpack_chunked_array__`. msgpack builds data only: nothing in such a file can be called.
"""

import itertools
import math
from typing import IO, Any

import ml_dtypes
import msgpack
import numpy as np

from cm_jax.errors import UserError, shown

ARRAYS = (1, 3)  # the codes of arrays and of scalars
MAX_DICTS = 1_000_000
MAX_LIST = 10_000  # items, for which memory is taken before they are read
MAX_DIMS = 32  # of an array
CHUNKED = '__msgpack_chunked_array__'
DTYPES = {
    name: np.dtype(name)
    for name in (
        *('float64', 'float32', 'float16', 'int64', 'int32', 'int16', 'int8'),
        *('uint64', 'uint32', 'uint16', 'uint8', 'bool'),
    )
} | {'bfloat16': np.dtype(ml_dtypes.bfloat16)}
MAPS = (*range(0x81, 0x90), 0xDE, 0xDF)  # the first byte of a dict that is not empty
STRINGS = (*range(0xA0, 0xC0), 0xD9, 0xDA)  # the first byte of a string
MAP_HEADS = {0xDE: 3, 0xDF: 5}  # the length of a dict's head where it is not 1


def is_flax(start: bytes) -> bool:
    """Returns whether a file that begins with `start` is a msgpack dict whose first key is a string."""
    if not start or start[0] not in MAPS:
        return False
    head = MAP_HEADS.get(start[0], 1)
    return len(start) > head and start[head] in STRINGS


def load(file: IO[bytes]) -> Any:
    """Returns the dict in a file, with its arrays as read-only NumPy arrays.

    Raises UserError if an array has another dtype than those in DTYPES, or the file holds an unknown
    extension or more than MAX_DICTS dicts; ValueError if an array has not as many bytes as its shape
    says, a list more than MAX_LIST items, or the file ends early.
    """
    content = file.read()
    size, dicts = len(content), itertools.count(1)

    def counted(node: dict) -> Any:
        if next(dicts) > MAX_DICTS:
            raise UserError(f'it holds more than {MAX_DICTS:,} dicts, the limit')
        return _joined(node)

    return msgpack.unpackb(
        content,
        ext_hook=_extension,
        object_hook=counted,
        strict_map_key=False,
        max_array_len=MAX_LIST,
        max_bin_len=size,
        max_str_len=size,
        max_ext_len=size,
    )


def _extension(code: int, content: bytes) -> np.ndarray:
    """Returns the array that an extension holds."""
    if code not in ARRAYS:
        raise UserError(f'it holds the msgpack extension {code}; legal: arrays and scalars of flax')
    shape, dtype, data = msgpack.unpackb(
        content, max_bin_len=len(content), max_array_len=MAX_DIMS, max_map_len=0
    )
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise UserError(f'it holds an array of {shown(dtype)}; legal: {", ".join(DTYPES)}')
    if any(type(n) is not int or n < 0 for n in shape):
        raise ValueError(f'an array has the shape {shape}')
    if len(data) != math.prod(shape) * DTYPES[dtype].itemsize:
        raise ValueError(f'an array of shape {shape} and dtype {dtype} has {len(data)} bytes')
    return np.frombuffer(data, DTYPES[dtype]).reshape(shape)


def _joined(node: dict) -> Any:
    """Returns a dict as it is, or the array that it holds in pieces."""
    if CHUNKED not in node:
        return node
    shape, pieces = (
        [items[str(i)] for i in range(len(items))] for items in (node['shape'], node['chunks'])
    )
    return np.concatenate(pieces).reshape(shape)
