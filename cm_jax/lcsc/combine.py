"""From snapshots to stacked weights, and from coefficients to weights."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from cm_jax.errors import UserError
from cm_jax.lcsc.space import ONE, Space
from cm_jax.types import Params


def window(
    steps: Sequence[int], start: int, stop: int | None, every: int, least: int = 2
) -> list[int]:
    """Returns the snapshots of a search: every `every`-th of `steps` from `start` to `stop`.

    The last of them is always among them.

    Raises UserError if fewer than `least` are left.
    """
    inside = [step for step in steps if step >= start and (stop is None or step <= stop)]
    chosen = inside[::-1][::every][::-1] if every >= 1 else []
    if len(chosen) < least:
        raise UserError(
            f'the search window from {start} to {"the end" if stop is None else stop}, every '
            f'{every}, holds {len(chosen)} of the {len(steps)} snapshots '
            f'({f"{min(steps)} to {max(steps)}" if steps else "none"}); a search needs at least {least}'
        )
    return chosen


def stack(load: Callable[[Any], Params], steps: Sequence[Any]) -> Params:
    """Returns the snapshots `load(step)` in one tree with leaves [K, ...], read one at a time."""
    stacked = None
    for i, step in enumerate(steps):
        snapshot = load(step)
        if stacked is None:
            stacked = jax.tree.map(lambda x: np.empty((len(steps), *x.shape), x.dtype), snapshot)
        jax.tree.map(lambda whole, part, i=i: whole.__setitem__(i, part), stacked, snapshot)
    return stacked


def combine(
    load: Callable[[Any], Params],
    steps: Sequence[Any],
    coefficients: np.ndarray,
    space: Space = ONE,
) -> Params:
    """Returns sum_k c_k theta_k of coefficients [K] or, by groups, [G K], as float32 numpy leaves.

    The snapshots `load(step)` are read one at a time and added in float64 on the host. The result of
    every search is made in this way, whatever form the snapshots had during the search. A snapshot
    whose coefficient is 0 is left out, whatever it holds; coefficients are rounded to float32 first.
    """
    rows = np.float32(coefficients).astype(np.float64).reshape(space.groups, -1)
    total = None
    for k, step in enumerate(steps):
        snapshot = load(step)
        if total is None:
            places = space.indices(snapshot)
            total = jax.tree.map(lambda x: np.full(x.shape, -0.0), snapshot)
        if rows[:, k].any():
            total = jax.tree.map(
                lambda t, g, x, k=k: _added(t, float(rows[g, k]), x), total, places, snapshot
            )
    return jax.tree.map(lambda x: np.asarray(x, np.float32), total)


def _added(total: np.ndarray, c: float, x: np.ndarray) -> np.ndarray:
    """Returns total + c x in float64, and `total` itself for c = 0."""
    return total + c * np.asarray(x, np.float64) if c else total
