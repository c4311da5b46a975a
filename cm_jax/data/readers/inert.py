"""Reads pickles without executing them.

A pickle asks for classes and functions by module and name. Here each name is looked up in a table of
stand-ins; a stand-in keeps the values that the pickle passes to it and does nothing else. A pickle
can set attributes on the objects that it is given, so every reading needs new stand-ins:
`numpy_stand_ins()` makes them.
"""

import pickle
from collections.abc import Callable, Mapping
from typing import IO, Any, Literal

import numpy as np

from cm_jax.errors import UserError

Table = Mapping[tuple[str, str], Any]  # (module, name) -> its stand-in
PLAIN_KINDS = 'biufc'  # the kinds of NumPy dtypes that are plain numbers: no objects, no records


class Unpickler(pickle.Unpickler):
    """Reads a pickle of containers, numbers, strings and the names in `table`.

    Raises UserError, naming what the pickle asks for and then `legal`, on any other name.
    `persistent(pid)` returns the object of a persistent id; without it such ids are refused too.
    """

    def __init__(
        self,
        file: IO[bytes],
        table: Table,
        legal: str,
        persistent: Callable[[Any], Any] | None = None,
        encoding: str = 'ASCII',
    ):
        super().__init__(file, encoding=encoding)
        self._table, self._legal, self._persistent = table, legal, persistent

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._table[module, name]
        except KeyError:
            raise UserError(f'it asks for {module}.{name}; {self._legal}') from None

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

        Raises ValueError if its elements are not plain numbers, and AttributeError if the pickle
        never said what they are.
        """
        dtype = np.dtype(self.dtype.name).newbyteorder(self.dtype.order)
        if dtype.kind not in PLAIN_KINDS:
            raise ValueError(f'an array of {dtype}; legal: numbers')
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
