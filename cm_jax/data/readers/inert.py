"""Pickles read without running them: what a pickle names is looked up in a table of stand-ins.

A stand-in keeps what the pickle says and does nothing else. A pickle can set attributes on whatever
it is handed, so each reading gets stand-ins of its own: `numpy_stand_ins()`.
"""

import pickle
from collections.abc import Callable, Mapping
from typing import IO, Any

import numpy as np

from cm_jax.errors import UserError

Table = Mapping[tuple[str, str], Any]  # (module, name) -> what stands in for it
PLAIN_KINDS = 'biufc'  # of NumPy dtypes: no objects, no records


class Unpickler(pickle.Unpickler):
    """Reads containers, numbers, strings and what `table` has; all else is refused by its name.

    `persistent` answers the pickle's persistent ids; without it they are refused.
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
    """What a pickle says of a NumPy array; `value()` builds it."""

    shape, dtype, fortran, data = (), None, False, b''

    def __init__(self, *_: Any):
        pass

    def __setstate__(self, state: tuple) -> None:
        _, self.shape, self.dtype, self.fortran, self.data = state

    def value(self) -> np.ndarray:
        """The array, read-only. Raises ValueError if it is not of plain numbers."""
        dtype = np.dtype(self.dtype.name).newbyteorder(self.dtype.order)
        if dtype.kind not in PLAIN_KINDS:
            raise ValueError(f'an array of {dtype}; legal: numbers')
        flat = np.frombuffer(self.data, dtype)
        return flat.reshape(self.shape, order='F' if self.fortran else 'C')


class NumpyDtype:
    """What a pickle says of a NumPy dtype."""

    order = '='

    def __init__(self, name: str | bytes, *_: Any):
        self.name = name.decode() if isinstance(name, bytes) else name

    def __setstate__(self, state: tuple) -> None:
        order = state[1].decode() if isinstance(state[1], bytes) else state[1]
        self.order = order if order in ('<', '>') else '='


def numpy_stand_ins() -> dict[tuple[str, str], Any]:
    """The table of NumPy's names: arrays become NumpyArray, dtypes NumpyDtype."""

    class Array(NumpyArray):
        pass

    class Dtype(NumpyDtype):
        pass

    def scalar(dtype: NumpyDtype, data: bytes) -> NumpyArray:
        array = Array()
        array.dtype, array.data = dtype, data
        return array

    table = {('numpy', 'ndarray'): Array, ('numpy', 'dtype'): Dtype}
    for package in ('numpy.core', 'numpy._core'):
        table[f'{package}.multiarray', '_reconstruct'] = Array
        table[f'{package}.multiarray', 'scalar'] = scalar
    return table
