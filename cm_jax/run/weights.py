"""What the weights of a run are like: each array of one step, and their norms over the trajectory."""

import dataclasses
import importlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from cm_jax.core import tree
from cm_jax.run.tables import Table
from cm_jax.types import Params

ALL = 'all'  # stands for all blocks together


class ArrayInfo(NamedTuple):
    """What an array of weights is like."""

    shape: tuple[int, ...]
    size: int  # the number of its values
    norm: float  # the root of the sum of their squares
    dtype: str
    saved_as: str  # how it lay on devices: 'whole on 4 devices'; '' for an average made here

    def __str__(self) -> str:
        words = [f'{self.dtype} {list(self.shape)}', f'norm {self.norm:.4g}', self.saved_as]
        return ', '.join(filter(None, words))


@dataclasses.dataclass(frozen=True)
class WeightTree:
    """The arrays of a tree of weights.

    A notebook shows them as a tree by treescope, where that is installed, and else as a table. The tree
    needs scripts: `print` the table for a page that runs none.
    """

    title: str
    arrays: Mapping[tuple[str, ...], ArrayInfo]

    def table(self) -> Table:
        """Returns a row for each array: path, shape, size, norm, dtype, saved_as."""
        rows = ({'path': '/'.join(p)} | info._asdict() for p, info in self.arrays.items())
        return Table(
            ({**row, 'shape': ' x '.join(map(str, row['shape'])) or 'scalar'} for row in rows),
            note=self.title,
        )

    def __repr__(self) -> str:
        return repr(self.table())

    def _repr_html_(self) -> str:
        try:
            treescope = importlib.import_module('treescope')
        except ImportError:
            return self.table()._repr_html_()
        words = {path: str(info) for path, info in self.arrays.items()}
        return f'<p>{self.title}</p>{treescope.render_to_html(tree.unflatten(words))}'


def describe(params: Params, saved_as: Mapping[str, str], title: str) -> WeightTree:
    """Returns what the arrays of weights are like. `saved_as` has the words for them by their paths."""
    arrays = {
        path: ArrayInfo(
            shape=tuple(leaf.shape),
            size=int(leaf.size),
            norm=norm([leaf]),
            dtype=str(leaf.dtype),
            saved_as=saved_as.get('/'.join(path), ''),
        )
        for path, leaf in tree.flatten(params).items()
    }
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params)) / 1e6
    total = norm(jax.tree.leaves(params))
    note = (
        f'{title}: {tree.count(params):,} parameters in {len(arrays)} arrays, {size:.3g} MB, '
        f'norm {total:.4g}'
    )
    return WeightTree(note, arrays)


def norm(arrays: Iterable[np.ndarray]) -> float:
    """Returns the root of the sum of the squares of all values, computed in float64."""
    squares = (np.sum(np.square(array, dtype=np.float64)) for array in arrays)
    return float(np.sqrt(sum(squares)))


def norms(load: Callable[[int], Params], steps: Iterable[int]) -> Table:
    """Returns the norms of weights and updates over the trajectory; see `Run.norms`."""
    rows: list[dict[str, Any]] = []
    before: Params = None
    for step in steps:
        params = load(step)
        update = before and jax.tree.map(_difference, params, before)
        parts = {ALL: params} | tree.top_level(params)
        moved = update and {ALL: update} | tree.top_level(update)
        for block, part in parts.items():
            change = norm(jax.tree.leaves(moved[block])) if moved else None
            rows.append(
                {
                    'step': step,
                    'block': block,
                    'weights': norm(jax.tree.leaves(part)),
                    'update': change,
                }
            )
        before = params
    return Table(rows)


def _difference(new: np.ndarray, old: np.ndarray) -> np.ndarray:
    return np.subtract(new, old, dtype=np.float64)
