"""Made-up weight files, written byte by byte as PyTorch and EDM write them, without PyTorch."""

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
MACHINE = {'protocol_version': PROTOCOL, 'little_endian': True, 'type_sizes': {'int': 4}}
STORAGES = {
    np.dtype(np.float32): 'FloatStorage',
    np.dtype(np.float64): 'DoubleStorage',
    np.dtype(np.float16): 'HalfStorage',
    np.dtype(ml_dtypes.bfloat16): 'BFloat16Storage',
    np.dtype(np.int64): 'LongStorage',
    np.dtype(np.bool_): 'BoolStorage',
}


class Named:
    """Written as a reference to `module.name`, which need not exist."""

    def __init__(self, module: str, name: str):
        self.module, self.name = module, name

    def __call__(self):
        raise AssertionError


class Storage:
    """Values that tensors share; written as the kind of file asks."""

    def __init__(self, values: np.ndarray):
        self.values, self.key = values, ''

    def __reduce__(self):  # in a plain pickle: the bytes of a legacy file
        return Named('torch.storage', '_load_from_bytes'), (legacy_file(self),)


class Tensor(NamedTuple):
    storage: Storage
    offset: int
    shape: tuple
    stride: tuple

    def __reduce__(self):
        arguments = (*self, False, OrderedDict())
        return Named('torch._utils', '_rebuild_tensor_v2'), arguments


class Parameter:
    def __init__(self, data: Tensor):
        self.data = data

    def __reduce__(self):
        return Named('torch._utils', '_rebuild_parameter'), (self.data, True, OrderedDict())


class Persistent:
    """An object of torch_utils.persistence with source text that must never run."""

    def __init__(self, class_name: str, state: dict, source: str):
        self.meta = {'type': 'class', 'version': 6, 'module_src': source}
        self.meta |= {'class_name': class_name, 'state': state}

    def __reduce__(self):
        return Named('torch_utils.persistence', '_reconstruct_persistent_obj'), (self.meta,)


class Command:
    """A pickle of this makes a file when it is loaded carelessly."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Named('os', 'system'), (f'touch {self.marker}',)


def tensor(values: np.ndarray) -> Tensor:
    """A contiguous tensor with a storage of its own."""
    stride = tuple(s // values.itemsize for s in np.empty(values.shape, values.dtype).strides)
    return Tensor(Storage(values.ravel()), 0, values.shape, stride)


class _Pickler(pickle._Pickler):
    """Writes Named as a reference and, with `storages`, Storage as a persistent id."""

    dispatch = pickle._Pickler.dispatch.copy()

    def __init__(self, file: io.BytesIO, protocol: int, storages: list | None = None):
        super().__init__(file, protocol)
        self.storages = storages

    def save_named(self, named: Named) -> None:
        self.write(f'c{named.module}\n{named.name}\n'.encode())

    def save_reduced(self, item: Any) -> None:
        self.save_reduce(*item.__reduce__(), obj=item)

    dispatch[Named] = save_named
    dispatch[Tensor] = save_reduced  # a tuple otherwise

    def persistent_id(self, item: Any) -> Any:
        if self.storages is None or not isinstance(item, Storage):
            return None
        if item not in self.storages:
            item.key = str(len(self.storages))
            self.storages.append(item)
        kind = Named('torch', STORAGES[item.values.dtype])
        return 'storage', kind, item.key, 'cpu', item.values.size


def plain_pickle(root: Any, protocol: int = 4, storages: list | None = None) -> bytes:
    """As pickle.dump in a process with PyTorch."""
    file = io.BytesIO()
    _Pickler(file, protocol, storages).dump(root)
    return file.getvalue()


def legacy_file(root: Any) -> bytes:
    """As torch.save before 1.6."""
    storages = []
    body = plain_pickle(root, 2, storages)
    head = [pickle.dumps(item, 2) for item in (MAGIC, PROTOCOL, MACHINE)]
    keys = pickle.dumps([storage.key for storage in storages], 2)
    ends = [struct.pack('<q', s.values.size) + s.values.tobytes() for s in storages]
    return b''.join([*head, body, keys, *ends])


def zip_file(root: Any) -> bytes:
    """As torch.save since 1.6."""
    file, storages = io.BytesIO(), []
    with zipfile.ZipFile(file, 'w') as archive:
        archive.writestr('weights/data.pkl', plain_pickle(root, 2, storages))
        archive.writestr('weights/byteorder', 'little')
        for storage in storages:
            archive.writestr(f'weights/data/{storage.key}', storage.values.tobytes())
        archive.writestr('weights/version', '3\n')
    return file.getvalue()


WRITERS = {'.pkl': plain_pickle, '.pt': zip_file, '.pth': legacy_file}  # by the usual file name


def module(class_name: str, tensors: dict[str, np.ndarray], source: str = '') -> Persistent:
    """A persistent module with submodules as the dotted names say; freqs and filters are buffers."""
    own, children = {}, {}
    for name, value in tensors.items():
        first, _, rest = name.partition('.')
        if rest:
            children.setdefault(first, {})[rest] = value
        else:
            own[first] = tensor(value)
    buffers = {k: v for k, v in own.items() if k in ('freqs', 'phases', 'resample_filter')}
    state = {
        'training': False,
        '_parameters': {k: Parameter(v) for k, v in own.items() if k not in buffers}
        | {'none': None},
        '_buffers': OrderedDict(buffers),
        '_non_persistent_buffers_set': set(),
        '_modules': OrderedDict((k, module('Block', v, source)) for k, v in children.items()),
        '_init_args': (),
        '_init_kwargs': {'sigma_data': 0.5},
    }
    return Persistent(class_name, state, source)


DTYPES = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16, np.int64, np.bool_]


def values(dtype=np.float32, shape=(2, 3, 4)):
    return np.random.default_rng(0).normal(0, 3, shape).astype(dtype)


def same(found, wanted):
    """Equal names, dtypes, shapes and bits."""
    assert found.keys() == wanted.keys()
    for name in wanted:
        assert found[name].dtype == wanted[name].dtype and found[name].shape == wanted[name].shape
        assert found[name].tobytes() == np.ascontiguousarray(wanted[name]).tobytes(), name
