"""From snapshots to stacked weights, and from coefficients to weights."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from cm_jax.core import tree
from cm_jax.errors import UserError
from cm_jax.types import Params


def window(steps: Sequence[int], start: int, stop: int | None, every: int) -> list[int]:
    """The snapshots of a search: every `every`-th of `steps` from `start` to `stop`, the last kept.

    Raises UserError if fewer than two are left.
    """
    inside = [step for step in steps if step >= start and (stop is None or step <= stop)]
    chosen = inside[::-1][::every][::-1] if every >= 1 else []
    if len(chosen) < 2:
        raise UserError(
            f'the search window from {start} to {"the end" if stop is None else stop}, every '
            f'{every}, holds {len(chosen)} of the {len(steps)} snapshots '
            f'({f"{min(steps)} to {max(steps)}" if steps else "none"}); a search needs at least 2'
        )
    return chosen


def stack(load: Callable[[int], Params], steps: Sequence[int]) -> Params:
    """The snapshots `load(step)` in one tree with leaves [K, ...], read one at a time."""
    stacked = None
    for i, step in enumerate(steps):
        snapshot = load(step)
        if stacked is None:
            stacked = jax.tree.map(lambda x: np.empty((len(steps), *x.shape), x.dtype), snapshot)
        jax.tree.map(lambda whole, part, i=i: whole.__setitem__(i, part), stacked, snapshot)
    return stacked


def combine(stacked: Params, coefficients: np.ndarray) -> Params:
    """sum_k c_k theta_k as numpy arrays; see core.tree.linear_combination."""
    combined = jax.jit(tree.linear_combination)(stacked, jnp.asarray(coefficients, jnp.float32))
    return jax.tree.map(np.asarray, combined)
