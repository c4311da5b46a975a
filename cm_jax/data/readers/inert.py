"""Reads pickles without executing them, and in memory that the size of the file bounds.

A pickle asks for classes and functions by module and name. Here each name is looked up in a table of
stand-ins; a stand-in keeps the values that the pickle passes to it and does nothing else. A pickle
can set attributes on the objects that it is given, so every reading needs new stand-ins:
`numpy_stand_ins()` makes them.

A pickle can also pass one value to a stand-in any number of times, in two bytes each. A stand-in
therefore never copies a value, unless it keeps the copy for the next time.
"""

import functools
import pickle
import types
from collections.abc import Callable, Mapping
from typing import IO, Any, Literal

import numpy as np

from cm_jax.errors import UserError, shown

Table = Mapping[tuple[str, str], Any]  # (module, name) -> its stand-in
PLAIN_KINDS = 'biuf'  # the kinds of NumPy dtypes that are real numbers: nothing complex, no objects
# The operations of one pickle: each builds an object of at most some 200 bytes, besides its text.
MAX_OPERATIONS = 1_000_000
MAX_PARTS = 16  # of a tuple that is a key
CHECKED = 1 << 16  # bytes from which a read is compared with what is left of the file
SETITEM, SETITEMS, DICT, ADDITEMS, FROZENSET = (
    code[0]
    for code in (pickle.SETITEM, pickle.SETITEMS, pickle.DICT, pickle.ADDITEMS, pickle.FROZENSET)
)
KEYS = {  # operation -> where its keys lie on the stack
    SETITEM: slice(-2, -1),
    SETITEMS: slice(None, None, 2),
    DICT: slice(None, None, 2),
    ADDITEMS: slice(None),
    FROZENSET: slice(None),
}


def read_exactly(file: IO[bytes], size: int) -> bytes:
    """Returns the next `size` bytes of a file.

    Raises EOFError if fewer are left, before any memory is taken for them.
    """
    if size > CHECKED:
        here = file.tell()
        left = file.seek(0, 2) - here
        file.seek(here)
        if size > left:
            raise EOFError(f'{size:,} bytes are declared, and the file has {left:,} more')
    content = file.read(size)
    if len(content) != size:
        raise EOFError(f'the file ends after {len(content):,} of {size:,} bytes')
    return content


def _bounded(code: int, operation: Callable[[Any], None]) -> Callable[[Any], None]:
    """Returns an operation of the unpickler that first checks the bounds of the reading."""

    def run(unpickler: Any) -> None:
        unpickler.operations += 1
        if unpickler.operations > MAX_OPERATIONS:
            raise UserError(f'its pickle is longer than {MAX_OPERATIONS:,} operations, the limit')
        for key in unpickler.stack[KEYS[code]] if code in KEYS else ():
            # The hash of a tuple is computed anew each time, through all that it refers to.
            if isinstance(key, tuple) and (
                len(key) > MAX_PARTS or any(isinstance(part, tuple) for part in key)
            ):
                raise UserError(
                    f'a key of its dicts or sets is a tuple of tuples, or of over {MAX_PARTS} parts'
                )
        operation(unpickler)

    return run


def _load_bytearray8(unpickler: Any) -> None:
    """The operation BYTEARRAY8, which makes room only for bytes that the file has."""
    unpickler.append(bytearray(unpickler.read(int.from_bytes(unpickler.read(8), 'little'))))


class _Operations(dict):
    """The operations of the unpickler, by their codes."""

    def __missing__(self, code: int) -> Any:
        raise pickle.UnpicklingError(f'{code:#04x} is no operation')


class Unpickler(pickle._Unpickler):
    """Reads a pickle of containers, numbers, strings and the names in `table`.

    It is Python's own unpickler, not the one in C, which takes memory for whatever index or length a
    pickle states. Raises UserError, naming what the pickle asks for and then `legal`, on any other
    name, and on more than MAX_OPERATIONS operations. `persistent(pid)` returns the object of a
    persistent id; without it such ids are refused too.
    """

    dispatch = _Operations(
        (code, _bounded(code, operation))
        for code, operation in {
            **pickle._Unpickler.dispatch,
            pickle.BYTEARRAY8[0]: _load_bytearray8,
        }.items()
        if code != pickle.LONG4[0]  # whole numbers of thousands of digits
    )

    def __init__(
        self,
        file: IO[bytes],
        table: Table,
        legal: str,
        persistent: Callable[[Any], Any] | None = None,
        encoding: str = 'ASCII',
    ):
        read = functools.partial(read_exactly, file)
        source: Any = types.SimpleNamespace(read=read, readline=file.readline)
        super().__init__(source, encoding=encoding)
        self._table, self._legal, self._persistent = table, legal, persistent
        self.operations = 0

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._table[module, name]
        except KeyError:
            asked = f'{shown(module)}.{shown(name)}'
            raise UserError(f'it asks for {asked}; {self._legal}') from None

    def persistent_load(self, pid: Any) -> Any:
        if self._persistent is None:
            raise UserError(f'it asks for a persistent object; {self._legal}')
        return self._persistent(pid)


class NumpyArray:
    """Stands in for a NumPy array: keeps what the pickle says of it; `value()` builds the array."""

    shape: tuple[int, ...] = ()
    dtype: 'NumpyDtype'
    fortran: bool = False
    data: bytes = b''

    def __init__(self, *_: Any):
        pass

    def __setstate__(self, state: tuple) -> None:
        _, self.shape, self.dtype, self.fortran, self.data = state

    def value(self) -> np.ndarray:
        """Returns the array, read-only.

        Raises ValueError if its elements are not real numbers, and AttributeError if the pickle
        never said what they are.
        """
        dtype = np.dtype(self.dtype.name).newbyteorder(self.dtype.order)
        if dtype.kind not in PLAIN_KINDS:
            raise ValueError(f'an array of {dtype}; legal: real numbers')
        flat = np.frombuffer(self.data, dtype)
        return flat.reshape(self.shape, order='F' if self.fortran else 'C')


class NumpyDtype:
    """Stands in for a NumPy dtype: keeps the name and byte order that the pickle says."""

    order: Literal['<', '>', '='] = '='  # '=' is the byte order of this machine

    def __init__(self, name: str | bytes, *_: Any):
        self.name = name.decode() if isinstance(name, bytes) else name

    def __setstate__(self, state: tuple) -> None:
        order = state[1].decode() if isinstance(state[1], bytes) else state[1]
        self.order = '<' if order == '<' else '>' if order == '>' else '='


def numpy_stand_ins() -> dict[tuple[str, str], Any]:
    """Returns a new table for the names that a pickle of NumPy arrays asks for.

    Arrays and scalars become NumpyArray, dtypes become NumpyDtype.
    """

    class Array(NumpyArray):
        pass

    class Dtype(NumpyDtype):
        pass

    def scalar(dtype: NumpyDtype, data: bytes) -> NumpyArray:
        array = Array()
        array.dtype, array.data = dtype, data
        return array

    def from_buffer(data: bytes, dtype: NumpyDtype, shape: tuple, order: str) -> NumpyArray:
        array = Array()
        array.data, array.dtype, array.shape = data, dtype, shape
        array.fortran = order == 'F'
        return array

    table: dict[tuple[str, str], Any] = {('numpy', 'ndarray'): Array, ('numpy', 'dtype'): Dtype}
    for package in ('numpy.core', 'numpy._core'):
        table[f'{package}.multiarray', '_reconstruct'] = Array
        table[f'{package}.multiarray', 'scalar'] = scalar
        table[f'{package}.numeric', '_frombuffer'] = from_buffer  # in protocol 5
    return table
