"""Where the snapshots of a search lie, and how a population is combined from them.

    device   stacked [K, ...] on every device: the default, if K parameter sets fit there
    host     stacked in host memory; each generation sends every snapshot to the devices once
    disk     in the run alone; each generation loads every snapshot once, one ahead of its use

'host' and 'disk' add snapshot by snapshot to the weights of all candidates at once, which is memory
for 2 parameter sets a candidate on its device. The sums are those of 'device', term by term.

As 'bfloat16' a snapshot is a bfloat16 difference from the last one, which stays in float32: half the
memory, and 2^-8 of an entry's way to the last snapshot is lost where bfloat16 weights would lose
2^-8 of the entry. The sum, as the coefficients' is one: theta_K + sum_k c_k (theta_k - theta_K).

Its effect, on the README's digits run (configs/digits_ect.py and digits_lcsc.py on an AMD EPYC, 60 of
the search's candidates scored again with its 35 snapshots and 2,000 samples): scores differ from
float32's by 0.012 % at the median and 0.046 % at most, the 20 best keep their order; weights rounded
to bfloat16 themselves would differ by 0.22 % and 0.96 %, other noise by 3.3 % and 5.7 %. XLA's CPU
code has no use for it: bfloat16 saves memory there and no time.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from cm_jax.core import compensated
from cm_jax.errors import check_name
from cm_jax.lcsc import combine
from cm_jax.lcsc.space import Space
from cm_jax.sharding import by_example, replicated
from cm_jax.types import Array, Params

WHERE = ('device', 'host', 'disk')
DTYPES = ('float32', 'bfloat16')


class Stored(NamedTuple):
    """K snapshots, oldest first."""

    count: int
    stacked: Params | None  # numpy leaves [K, ...]; None on disk
    base: Params | None  # what the snapshots are differences from; None for the weights themselves
    snapshot: Callable[[int], Params]  # number k of them, as it is stored
    exact: Callable[[int], Params]  # number k of them, as the run has it: read again if need be
    streamed: bool


def store(
    load: Callable[[int], Params],
    steps: Sequence[int],
    *,
    where: str = 'device',
    dtype: str = 'float32',
) -> Stored:
    """The snapshots `load(step)`, read one at a time. Raises UserError on unknown names."""
    check_name('storage of snapshots', where, WHERE)
    check_name('dtype of stored snapshots', dtype, DTYPES)
    base = load(steps[-1]) if dtype == 'bfloat16' else None

    def stored(step: int) -> Params:
        if base is None:
            return load(step)
        return jax.tree.map(lambda x, y: (x - y).astype(jnp.bfloat16), load(step), base)

    read = lambda k: load(steps[k])  # noqa: E731
    if where == 'disk':
        return Stored(len(steps), None, base, lambda k: stored(steps[k]), read, True)
    stacked = combine.stack(stored, steps)
    row = lambda k: jax.tree.map(lambda leaf: leaf[k], stacked)  # noqa: E731
    return Stored(len(steps), stacked, base, row, row if base is None else read, where == 'host')


def make_streams(
    stored: Stored, space: Space, mesh: Mesh
) -> Callable[[Sequence[np.ndarray]], list[Params]]:
    """Returns `combined(blocks) -> weights`: of each block [mesh.size, G K] the sums that it names.

    The weights are leaves of compensated.Sum [mesh.size, ...], split over the devices; every
    snapshot is read once for all blocks. Nothing is compiled for another number of blocks.
    """
    split, whole = by_example(mesh), replicated(mesh)

    def start(template: Params) -> Params:
        one = jnp.float32(0 if stored.base is None else 1)
        first = lambda x: compensated.add(compensated.zero(x.shape), one, x)  # noqa: E731
        repeat = lambda x: jnp.broadcast_to(x[None], (mesh.size, *x.shape))  # noqa: E731
        return jax.tree.map(repeat, jax.tree.map(first, template))

    def add(total: Params, snapshot: Params, c: Array) -> Params:
        one = jax.vmap(compensated.add, (0, 0, None))
        places = space.indices(snapshot)
        is_sum = lambda x: isinstance(x, compensated.Sum)  # noqa: E731
        of = lambda t, g, x: one(t, c[:, g], x)  # noqa: E731
        return jax.tree.map(of, total, places, snapshot, is_leaf=is_sum)

    start = jax.jit(start, out_shardings=split)
    add = jax.jit(add, out_shardings=split, donate_argnums=0)

    def combined(blocks: Sequence[np.ndarray]) -> list[Params]:
        rows = [np.float32(block).reshape(mesh.size, space.groups, -1) for block in blocks]
        totals = None
        for k, snapshot in enumerate(_ahead(stored)):
            snapshot = jax.device_put(snapshot, whole)
            if totals is None:
                template = snapshot if stored.base is None else jax.device_put(stored.base, whole)
                totals = [start(template) for _ in blocks]
            totals = [add(t, snapshot, row[:, :, k]) for t, row in zip(totals, rows)]
        return totals

    return combined


def value(total: Params) -> Params:
    """The float32 weights of sums."""
    is_sum = lambda x: isinstance(x, compensated.Sum)  # noqa: E731
    return jax.tree.map(compensated.value, total, is_leaf=is_sum)


def _ahead(stored: Stored) -> Iterator[Params]:
    """The snapshots in order; the next is read while one is used."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(stored.snapshot, 0)
        for k in range(stored.count):
            ready = coming.result()
            if k + 1 < stored.count:
                coming = pool.submit(stored.snapshot, k + 1)
            yield ready
