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
from jax.sharding import Mesh, Sharding

from cm_jax.errors import UserError, check_name
from cm_jax.lcsc import combine
from cm_jax.lcsc import space as spaces
from cm_jax.lcsc.space import Space
from cm_jax.sharding import replicated, to_host
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


class Placed(NamedTuple):
    """Snapshots within reach of all devices of a mesh."""

    k: int
    last: Params  # on every device
    # Goes through all differences once, in parts: which snapshots a part holds, and their differences,
    # leaves [k, ...]. It is one part where they lie on the devices, and K where they are streamed.
    read: Callable[[], Iterator[tuple[slice, Params]]]
    streamed: bool
    mesh: Mesh


def place(stored: Stored, mesh: Mesh) -> Placed:
    """Returns the snapshots for the devices of a mesh; whole on each, unless they are streamed."""
    whole = replicated(mesh)
    stacked = None if stored.streamed else jax.device_put(stored.stacked, whole)

    def read() -> Iterator[tuple[slice, Params]]:
        if stacked is not None:
            yield slice(None), stacked
            return
        for k, one in enumerate(_ahead(stored)):
            one = jax.tree.map(lambda leaf: leaf[None], one)
            yield slice(k, k + 1), jax.device_put(one, whole)

    last = jax.device_put(stored.last, whole)
    return Placed(k=stored.k, last=last, read=read, streamed=stored.streamed, mesh=mesh)


def make_combine(
    placed: Placed, space: Space, sharding: Sharding
) -> Callable[[np.ndarray], Params]:
    """Returns `combined(candidates [devices, T, G K]) -> weights`, leaves [devices, T, ...].

    `sharding` is that of the weights: split by the first axis, or whole on each device. Where the
    snapshots are streamed, each of them is read once for all candidates. The weights have the dtype of
    the last snapshot.
    """
    dtype = np.result_type(*(leaf.dtype for leaf in jax.tree.leaves(placed.last)))
    repeat = lambda x, shape: jnp.broadcast_to(x, (*shape, *x.shape))  # noqa: E731
    start = jax.jit(
        lambda last, shape: jax.tree.map(lambda x: repeat(x, shape), last),
        static_argnums=1,
        out_shardings=sharding,
    )
    add = jax.jit(partial(spaces.add, space), out_shardings=sharding, donate_argnums=0)

    def combined(candidates: np.ndarray) -> Params:
        rows = candidates.astype(dtype).reshape(*candidates.shape[:2], space.groups, -1)
        weights = start(placed.last, rows.shape[:2])
        for which, differences in placed.read():
            c = jax.device_put(np.ascontiguousarray(rows[..., which]), sharding)
            weights = add(weights, differences, c)
        return weights

    return combined


def make_products(placed: Placed, space: Space) -> Callable[[Params], np.ndarray]:
    """Returns `products(slope) -> [G, K]` float64: the inner products <slope, theta_k - theta_K>.

    With `slope` the derivative of a number by a candidate's weights, that is its derivative by the
    candidate's coefficients: K inner products a group, and one reading of streamed snapshots.
    """
    program = jax.jit(partial(spaces.products, space), out_shardings=replicated(placed.mesh))

    def products(slope: Params) -> np.ndarray:
        columns = [program(slope, differences) for _, differences in placed.read()]
        return np.concatenate([to_host(c) for c in columns], axis=1).astype(np.float64)

    return products


def _ahead(stored: Stored) -> Iterator[Params]:
    """Yields the differences in order; the next is read while one is used."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(stored.difference, 0)
        for k in range(stored.k):
            ready = coming.result()
            if k + 1 < stored.k:
                coming = pool.submit(stored.difference, k + 1)
            yield ready
