"""Writes weights in the safetensors format (https://github.com/huggingface/safetensors).

A file holds 8 bytes with the length of the header (little-endian), a JSON header {name: {dtype, shape,
data_offsets}} with strings under `__metadata__`, and the tensors' bytes.
"""

import json
import struct
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
from etils import epath

from cm_jax.errors import UserError
from cm_jax.files import writing

ALIGNMENT = 8  # bytes; the header is padded with spaces so that the first tensor is aligned
DTYPES = {
    'F64': np.dtype(np.float64),
    'F32': np.dtype(np.float32),
    'F16': np.dtype(np.float16),
    'BF16': np.dtype(ml_dtypes.bfloat16),
    'I64': np.dtype(np.int64),
    'I32': np.dtype(np.int32),
    'I16': np.dtype(np.int16),
    'I8': np.dtype(np.int8),
    'U64': np.dtype(np.uint64),
    'U32': np.dtype(np.uint32),
    'U16': np.dtype(np.uint16),
    'U8': np.dtype(np.uint8),
    'BOOL': np.dtype(np.bool_),
}
CODES = {dtype: code for code, dtype in DTYPES.items()}


def write_safetensors(
    path: str | epath.Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Writes tensors and a table of strings to a file, which is written whole or not at all.

    Raises UserError if the format lacks the dtype of a tensor, and ValueError if metadata are not
    strings.
    """
    path = epath.Path(path)
    if not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError('the metadata of a safetensors file must be strings')
    header: dict[str, Any] = {'__metadata__': dict(metadata)} if metadata else {}
    offset = 0
    # The tensors with the largest elements come first, as the format's own library writes them: then
    # all of them are aligned.
    names = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    for name in names:
        tensor = tensors[name]
        if tensor.dtype not in CODES:
            raise UserError(f'{name} is {tensor.dtype}; legal in safetensors: {", ".join(DTYPES)}')
        offsets = [offset, offset + tensor.nbytes]
        code, shape = CODES[tensor.dtype], list(tensor.shape)
        header[name] = {'dtype': code, 'shape': shape, 'data_offsets': offsets}
        offset = offsets[1]
    text = json.dumps(header).encode()
    text += b' ' * (-len(text) % ALIGNMENT)
    with writing(path) as file:
        file.write(struct.pack('<Q', len(text)) + text)
        for name in names:
            file.write(np.ascontiguousarray(tensors[name]).tobytes())
