"""Data: one contract for every source.

    batches(source, split, batch_size, seed) -> iterator of {'image': [B,H,W,C] float32 in [-1,1],
                                                             'label': [B] int32}

A source is a file in data/sources with `open_source(split, **settings) -> Source`: random access to
uint8 images. Everything else (shuffling, sharding by process, resuming) is here, once.
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from cm_jax.data import sources
from cm_jax.errors import UserError, build_from, check_name

CACHE_BYTES = 1 << 30  # a set whose images fit in this is kept decoded in memory


class Source(NamedTuple):
    """Random access to labelled uint8 images.

    `get(indices)` takes int64 [n] and returns (images uint8 [n,H,W,C], labels int32 [n]). `card` is
    the data card stored with the data when it was prepared (see data/card.py), or None.
    """

    name: str
    split: str
    count: int
    image_shape: tuple[int, int, int]
    num_classes: int
    get: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    card: dict[str, Any] | None = None


def source_names() -> list[str]:
    """The sources that there are: the files of data/sources."""
    return [m.name for m in pkgutil.iter_modules(sources.__path__)]


def open_source(source: str, split: str, **settings: Any) -> Source:
    """Opens a source by name. Raises UserError on an unknown name, setting or split."""
    check_name('data source', source, source_names())
    module = importlib.import_module(f'cm_jax.data.sources.{source}')
    return build_from('dataset', module.open_source, {'split': split, **settings})


def cached(source: Source) -> Source:
    """The same source, keeping what it decoded in memory, if all of it fits in CACHE_BYTES."""
    if source.count * int(np.prod(source.image_shape)) > CACHE_BYTES:
        return source
    images = np.empty((source.count, *source.image_shape), np.uint8)
    labels = np.empty(source.count, np.int32)
    have = np.zeros(source.count, bool)

    def get(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        missing = np.unique(indices[~have[indices]])
        if missing.size:
            images[missing], labels[missing] = source.get(missing)
            have[missing] = True
        return images[indices], labels[indices]

    return source._replace(get=get)


def to_float(images: np.ndarray) -> np.ndarray:
    """uint8 0..255 -> float32 in [-1, 1]: `x / 127.5 - 1`."""
    return images.astype(np.float32) / np.float32(127.5) - np.float32(1)


class Batches(Iterator):
    """Endless shuffled batches of this process's share, with a position that saves and resumes.

    Epoch e visits the examples in the order of a permutation drawn from (seed, e); a global batch
    takes the next `batch_size` of them, running over into the next epoch, and process p of P takes
    the p-th contiguous part of each global batch. The whole state is one number: the examples
    consumed so far by all processes.
    """

    def __init__(
        self,
        source: Source,
        batch_size: int,
        seed: int,
        process_index: int = 0,
        process_count: int = 1,
    ):
        if batch_size <= 0 or batch_size % process_count:
            raise UserError(
                f'batch_size {batch_size} is not a positive multiple of {process_count} processes'
            )
        if source.count == 0:
            raise UserError(f'{source.name}, split {source.split!r}, holds no example')
        self.source = cached(source)
        self.batch_size = batch_size
        self.seed = seed
        self.consumed = 0
        self._part = batch_size // process_count
        self._offset = process_index * self._part
        self._orders: dict[int, np.ndarray] = {}

    def _order(self, epoch: int) -> np.ndarray:
        if epoch not in self._orders:
            generator = np.random.default_rng((self.seed, epoch))
            self._orders = {e: o for e, o in self._orders.items() if e >= epoch - 1}
            self._orders[epoch] = generator.permutation(self.source.count)
        return self._orders[epoch]

    def __next__(self) -> dict[str, np.ndarray]:
        first = self.consumed + self._offset
        positions = np.arange(first, first + self._part)
        epochs, places = np.divmod(positions, self.source.count)
        indices = np.empty(self._part, np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            indices[here] = self._order(int(epoch))[places[here]]
        images, labels = self.source.get(indices)
        self.consumed += self.batch_size
        return {'image': to_float(images), 'label': labels.astype(np.int32)}

    def state(self) -> dict[str, int]:
        """What `restore` needs to go on from here."""
        return {'consumed': self.consumed}

    def restore(self, state: dict[str, int]) -> None:
        self.consumed = int(state['consumed'])


def batches(
    source: str,
    split: str,
    batch_size: int,
    seed: int,
    *,
    process_index: int = 0,
    process_count: int = 1,
    **settings: Any,
) -> Batches:
    """Opens `source` and iterates over it; see `Batches`. `settings` are the source's own."""
    opened = open_source(source, split, **settings)
    return Batches(opened, batch_size, seed, process_index, process_count)
