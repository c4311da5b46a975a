"""Pickles of PyTorch modules, read without running them and without PyTorch.

EDM and EDM2 write networks as persistent objects (`torch_utils.persistence`): the source text of the
module, the name of the class, and the state. Here the source is ignored, and stand-ins take the place
of the classes: `Module` keeps the state of a module, and `Tensor` keeps a storage with an offset, a
shape and strides. If a pickle asks for anything else, it is refused, with the name of what it asked
for, before anything is called. As data/readers/inert.py demands, no stand-in copies what it is given.
"""

import math
from collections.abc import Callable, Mapping
from typing import IO, Any, NamedTuple

import ml_dtypes
import numpy as np

from cm_jax.data.readers import inert
from cm_jax.errors import UserError

MAX_CLASSES = 1000  # the kinds of modules that one pickle names
MAX_REPEATED = 1 << 20  # the values of a tensor with more values than its storage
LEGAL = 'only tensors, numbers, strings and containers are built'
DTYPES = {  # the name of a storage class without 'Storage': the name of the dtype, the dtype
    'Float': ('float32', np.float32),
    'Double': ('float64', np.float64),
    'Half': ('float16', np.float16),
    'BFloat16': ('bfloat16', ml_dtypes.bfloat16),
    'Long': ('int64', np.int64),
    'Int': ('int32', np.int32),
    'Short': ('int16', np.int16),
    'Char': ('int8', np.int8),
    'Byte': ('uint8', np.uint8),
    'Bool': ('bool', np.bool_),
}
UNSIGNED = {
    'uint16': np.uint16,
    'uint32': np.uint32,
    'uint64': np.uint64,
}  # dtypes without a storage class


class Kind(NamedTuple):
    """The stand-in for the class of a storage and for a dtype of PyTorch."""

    dtype: np.dtype


class Storage:
    """The bytes that tensors lie in. `data` may be set after the pickle that names it is read."""

    def __init__(self, dtype: np.dtype, data: Any = None):
        self.dtype, self.data = dtype, data


class Tensor:
    """The stand-in for a tensor: what the pickle says of it. `value()` builds the array."""

    def __init__(
        self, storage: Storage, offset: int, shape: tuple, stride: tuple, dtype: Any = None
    ):
        self.storage, self.offset, self.shape, self.stride = storage, offset, shape, stride
        self.dtype = storage.dtype if dtype is None else dtype

    def value(self) -> np.ndarray:
        """Returns the tensor as a read-only view of its storage.

        Raises ValueError if its shape or strides are no valid numbers, it reaches outside, or it
        repeats the values of its storage to more than MAX_REPEATED.
        """
        numbers = (self.offset, *self.shape, *self.stride)
        if len(self.shape) != len(self.stride) or any(
            type(number) is not int or number < 0 for number in numbers
        ):
            raise ValueError(f'a tensor has the shape {self.shape} and the strides {self.stride}')
        flat = np.frombuffer(self.storage.data, self.dtype)
        if 0 in self.shape:
            return np.zeros(self.shape, self.dtype)
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.stride))
        if last >= flat.size:
            raise ValueError(f'a tensor of shape {self.shape} reaches outside its storage')
        values = math.prod(self.shape)
        if values > max(flat.size, MAX_REPEATED):
            raise ValueError(
                f'a tensor of shape {self.shape} repeats {flat.size:,} values to {values:,}; legal: '
                f'at most {MAX_REPEATED:,}'
            )
        strides = [s * flat.itemsize for s in self.stride]
        return np.lib.stride_tricks.as_strided(
            flat[self.offset :], self.shape, strides, writeable=False
        )


class Module:
    """The stand-in for a module or another object that torch_utils persisted: it keeps the state."""

    class_name: str = ''
    state: Mapping[str, Any] = {}  # never changed in place

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, dict) else {}


def _dict_class() -> type:
    """Returns a new class that stands in for the kinds of dict that pickles hold."""

    class Dict(dict):
        """The stand-in for OrderedDict, defaultdict and EasyDict.

        Attributes of the dict, such as the `_metadata` of a state dict, are dropped.
        """

        def __init__(self, *_: Any):
            super().__init__()

        def __setstate__(self, state: Any) -> None:
            pass

    return Dict


def _table(storage_from_bytes: Callable[[bytes], Storage] | None) -> dict[tuple[str, str], Any]:
    """Returns the stand-ins for the reading of one pickle, by (module, name).

    They are new for each reading, because a pickle can set attributes on them.
    """

    def tensor(storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> Tensor:
        if not isinstance(storage, Storage):
            raise UserError(f'a tensor is built around no storage; {LEGAL}')
        if not (isinstance(shape, tuple) and isinstance(stride, tuple)):
            raise UserError('the shape or the strides of a tensor are no tuple')
        dtype = rest[2].dtype if len(rest) > 2 and isinstance(rest[2], Kind) else None
        return Tensor(storage=storage, offset=offset, shape=shape, stride=stride, dtype=dtype)

    def parameter(data: Any, *_: Any) -> Any:
        return data

    def from_type(build: Any, kind: Any, arguments: tuple, state: Any) -> Any:
        del kind, state
        if build not in (tensor, parameter):
            raise UserError(f'a tensor is built by another {type(build).__name__}; {LEGAL}')
        return build(*arguments)

    def persistent(meta: dict) -> Module:
        module = Module()
        if not isinstance(meta['class_name'], str):
            raise UserError('the name of a class is no text')
        module.class_name = meta['class_name']
        module.__setstate__(meta['state'])
        return module

    encoded: dict[str, bytes] = {}
    storages: dict[bytes, Storage] = {}

    def encode(text: Any, encoding: Any) -> bytes:
        if not isinstance(text, str) or encoding != 'latin1':
            raise UserError('bytes are written in another form than as text in latin1')
        if text not in encoded:
            encoded[text] = text.encode('latin1')
        return encoded[text]

    def storage_inside(content: Any) -> Storage:
        if storage_from_bytes is None or not isinstance(content, bytes):
            raise UserError('a storage is inside another one, or holds no bytes')
        if content not in storages:
            storages[content] = storage_from_bytes(content)
        return storages[content]

    mapping = _dict_class()
    table = inert.numpy_stand_ins() | {
        ('collections', 'OrderedDict'): mapping,
        ('collections', 'defaultdict'): mapping,
        ('dnnlib.util', 'EasyDict'): mapping,
        ('_codecs', 'encode'): encode,
        ('torch_utils.persistence', '_reconstruct_persistent_obj'): persistent,
        ('torch.storage', '_load_from_bytes'): storage_inside,
        ('torch._utils', '_rebuild_tensor'): tensor,
        ('torch._utils', '_rebuild_tensor_v2'): tensor,
        ('torch._utils', '_rebuild_tensor_v3'): tensor,
        ('torch._utils', '_rebuild_parameter'): parameter,
        ('torch._utils', '_rebuild_parameter_with_state'): parameter,
        ('torch._tensor', '_rebuild_from_type_v2'): from_type,
        ('torch', 'Size'): lambda sizes=(): sizes,
        ('torch', 'device'): lambda *parts: parts,
        ('torch', 'Tensor'): None,
        ('torch.nn.parameter', 'Parameter'): None,
    }
    for package in ('builtins', '__builtin__'):
        table[package, 'set'] = lambda items=(): items
        table[package, 'dict'] = mapping
    for storage, (name, dtype) in DTYPES.items():
        kind = Kind(np.dtype(dtype))
        table['torch', f'{storage}Storage'] = table['torch', name] = kind
        table['torch.cuda', f'{storage}Storage'] = kind
    table |= {('torch', name): Kind(np.dtype(dtype)) for name, dtype in UNSIGNED.items()}
    for place in ('torch.storage', 'torch'):
        table[place, 'UntypedStorage'] = Kind(np.dtype(np.uint8))
    return table


class _Table(dict):
    """The stand-ins of `_table`, and in addition a new subclass of Module for each `torch.nn` class."""

    classes = 0  # of modules, so far

    def __missing__(self, key: tuple[str, str]) -> type:
        module, name = key
        if not module.startswith('torch.nn.modules.') or not name.isidentifier():
            raise KeyError(key)
        self.classes += 1
        if self.classes > MAX_CLASSES:
            raise UserError(f'it names more than {MAX_CLASSES:,} kinds of modules, the limit')
        self[key] = type(name, (Module,), {'class_name': name})
        return self[key]


def unpickle(
    file: IO[bytes],
    storage_from_bytes: Callable[[bytes], Storage] | None = None,
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """Reads the next pickle of a file and returns its object.

    The object is made of containers, numbers, strings, Tensor, NumpyArray and Module only.
    `storage_from_bytes` reads a storage that lies inside the pickle, where only a plain pickle may have
    one; `persistent` returns the object of a persistent id. Raises UserError that names the first other
    thing that the pickle asks for.
    """
    table = _Table(_table(storage_from_bytes))
    return inert.Unpickler(file, table, LEGAL, persistent, encoding='utf-8').load()
