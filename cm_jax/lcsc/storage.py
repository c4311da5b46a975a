"""Where the snapshots of a search lie, and how a population's weights are made from them.

    device   stacked [K, ...] on every device: the default, if K parameter sets fit there
    host     stacked in host memory; each generation sends every snapshot to the devices once
    disk     in the run alone; each generation loads every snapshot once, one ahead of its use

Beside them the weights of a population are on the devices together, spread over them; with 'device'
no more than 16 on each.

A snapshot is stored as its difference from the last one, and as the coefficients' sum is one a
candidate is theta_K + sum_k c_k (theta_k - theta_K): a matrix product of all candidates at once on
'device', term by term on 'host' and 'disk'. In float32 that is within about K^1/2 2^-24 of the
largest c_k (theta_k - theta_K), which is small beside the weights; a search's result is made
exactly, by lcsc.combine.

As 'bfloat16' the difference is bfloat16 and theta_K stays float32: half the memory, and 2^-8 of an
entry's way to the last snapshot is lost where bfloat16 weights would lose 2^-8 of the entry.

Its effect, on the README's digits run (configs/digits_ect.py and digits_lcsc.py on an AMD EPYC, 60 of
the search's candidates scored again with its 35 snapshots and 2,000 samples): scores differ from
float32's by 0.012 % at the median and 0.046 % at most, the 20 best keep their order; weights rounded
to bfloat16 themselves would differ by 0.22 % and 0.96 %, other noise by 3.3 % and 5.7 %. XLA's CPU
code has no use for it: bfloat16 saves memory there and no time.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from cm_jax.errors import UserError, check_name
from cm_jax.lcsc import combine
from cm_jax.lcsc import space as spaces
from cm_jax.lcsc.space import Space
from cm_jax.sharding import by_example, replicated
from cm_jax.types import Params

WHERE = ('device', 'host', 'disk')
DTYPES = ('float32', 'bfloat16')


class Stored(NamedTuple):
    """K snapshots, oldest first, as differences from the last."""

    k: int
    last: Params  # float32
    stacked: Params | None  # the differences, numpy leaves [K, ...]; None on disk
    difference: Callable[[int], Params]  # number k of them
    streamed: bool


def store(
    load: Callable[[Any], Params],
    steps: Sequence[Any],
    *,
    where: str = 'device',
    dtype: str = 'float32',
) -> Stored:
    """Returns the snapshots `load(step)`, which are read one at a time.

    Raises UserError on unknown names and, when it is read, on a snapshot with weights that are not
    finite: every candidate would have such weights, too.
    """
    check_name('storage of snapshots', where, WHERE)
    check_name('dtype of stored snapshots', dtype, DTYPES)
    last = load(steps[-1])

    def difference(step: Any) -> Params:
        snapshot = load(step)
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(snapshot)):
            raise UserError(
                f'the snapshot {step} has weights that are not finite; choose a window without it, by '
                'config.basis.start, stop and every'
            )
        return jax.tree.map(lambda x, y: np.subtract(x, y).astype(dtype), snapshot, last)

    if where == 'disk':
        return Stored(
            k=len(steps),
            last=last,
            stacked=None,
            difference=lambda k: difference(steps[k]),
            streamed=True,
        )
    stacked = combine.stack(difference, steps)
    row = lambda k: jax.tree.map(lambda leaf: leaf[k], stacked)  # noqa: E731
    return Stored(
        k=len(steps), last=last, stacked=stacked, difference=row, streamed=where == 'host'
    )


def make_combine(stored: Stored, space: Space, mesh: Mesh) -> Callable[[np.ndarray], Params]:
    """Returns `combined(candidates [devices, T, G K]) -> weights`, leaves [devices, T, ...].

    The weights are split over the devices. Where the snapshots are streamed, each of them is read once
    for all candidates.
    """
    split, whole = by_example(mesh), replicated(mesh)
    last = jax.device_put(stored.last, whole)
    repeat = lambda x, shape: jnp.broadcast_to(x, (*shape, *x.shape))  # noqa: E731
    start = jax.jit(
        lambda last, shape: jax.tree.map(lambda x: repeat(x, shape), last),
        static_argnums=1,
        out_shardings=split,
    )
    add = jax.jit(partial(spaces.add, space), out_shardings=split, donate_argnums=0)
    if not stored.streamed:
        stacked = jax.device_put(stored.stacked, whole)

    def parts() -> Iterator[tuple[slice, Params]]:
        if not stored.streamed:
            yield slice(None), stacked
            return
        for k, one in enumerate(_ahead(stored)):
            one = jax.tree.map(lambda leaf: leaf[None], one)
            yield slice(k, k + 1), jax.device_put(one, whole)

    def combined(candidates: np.ndarray) -> Params:
        rows = np.float32(candidates).reshape(*candidates.shape[:2], space.groups, -1)
        weights = start(last, rows.shape[:2])
        for which, differences in parts():
            c = jax.device_put(np.ascontiguousarray(rows[..., which]), split)
            weights = add(weights, differences, c)
        return weights

    return combined


def _ahead(stored: Stored) -> Iterator[Params]:
    """Yields the differences in order; the next is read while one is used."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(stored.difference, 0)
        for k in range(stored.k):
            ready = coming.result()
            if k + 1 < stored.k:
                coming = pool.submit(stored.difference, k + 1)
            yield ready
