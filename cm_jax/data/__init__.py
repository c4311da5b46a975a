"""Data: every source gives labelled uint8 images, and `Batches` turns any source into batches.

    source = open_source('digits', 'train')
    next(Batches(source, batch_size=32, seed=0))  # {'image': [B,H,W,C] float32 in [-1, 1],
                                                  #  'label': [B] int32}

A source is a file in data/sources with a function `open_source(split, **settings) -> Source`, which
gives random access to images. What is the same for all sources is done here: shuffling, dividing a
batch among processes, and resuming.
"""

import dataclasses
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from cm_jax.data import images, sources
from cm_jax.errors import UserError, build_from, check_name

# The settings of the sources. A config has all of them, and '' in those that its source does not take.
SETTINGS = {'name': 'tfds', 'data_dir': 'tfds', 'path': 'folder'}
CACHE_BYTES = 1 << 30  # a data set whose images fit in this is kept decoded in memory


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """Random access to labelled uint8 images.

    `get(indices)` takes int64 [n] and returns (images uint8 [n,H,W,C], labels int32 [n]).
    `num_classes` is 0 where the images have no labels; `get` then returns zeros for them. `card` is
    the data card that was stored with the data when it was prepared (see data/card.py), or None.
    `crop` is the rule of images.CROPS by which the images were cropped and resized then, or '' if that
    is not known. `flip` says whether `Batches` mirrors a random half of the images; `get` never does.
    """

    name: str
    split: str
    count: int
    image_shape: tuple[int, int, int]
    num_classes: int
    get: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    card: dict[str, Any] | None = None
    crop: str = ''
    flip: bool = False


def source_names() -> list[str]:
    """Returns the names of all sources, which are the files of data/sources."""
    return [module.name for module in pkgutil.iter_modules(sources.__path__)]


def open_source(
    source: str, split: str, *, flip: bool = False, crop: str = '', **settings: Any
) -> Source:
    """Opens a source by name; `settings` are the arguments that the source itself takes.

    With `flip`, training mirrors a random half of the images, left to right (see `Batches`). `crop` is
    the rule of images.CROPS by which the images must have been cropped and resized; '' asks for none.
    Data of which the rule is not known are opened whatever `crop` is.

    Raises UserError if the name, a setting or the split is unknown, if a setting of another source is
    not '', or if the images were made by another rule than `crop`.
    """
    check_name('data source', source, source_names())
    module = importlib.import_module(f'cm_jax.data.sources.{source}')
    legal = ('source', 'flip', 'crop', *inspect.signature(module.open_source).parameters)
    for key, value in list(settings.items()):
        if key in legal or key not in SETTINGS:
            check_name(f'key config.dataset.{key}', key, legal)
        elif settings.pop(key) != '':
            raise UserError(
                f'config.dataset.{key} = {value!r} is for the source {SETTINGS[key]!r}, and '
                f'config.dataset.source is {source!r}: add --config.dataset.source={SETTINGS[key]}'
            )
    if not isinstance(flip, bool):
        raise UserError(f'config.dataset.flip is True or False, got {flip!r}')
    if crop:
        check_name('rule config.dataset.crop', crop, images.CROPS)
    opened = build_from('dataset', module.open_source, {'split': split, **settings})
    if crop and opened.crop not in ('', crop):
        raise UserError(
            f'config.dataset.crop asks for images by the rule {crop!r}, and those of {opened.name} are '
            f'by {opened.crop!r}; prepare them again with --crop={crop}, under another name, or '
            "take them as they are with --config.dataset.crop=''"
        )
    return dataclasses.replace(opened, flip=flip)


def cached(source: Source) -> Source:
    """Returns a source of the same examples that decodes each of them only once.

    Decoded images stay in memory. A source whose images take more than CACHE_BYTES is returned as
    it is.
    """
    if source.count * int(np.prod(source.image_shape)) > CACHE_BYTES:
        return source
    decoded = np.empty((source.count, *source.image_shape), np.uint8)
    labels = np.empty(source.count, np.int32)
    is_decoded = np.zeros(source.count, bool)

    def get(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        missing = np.unique(indices[~is_decoded[indices]])
        if missing.size:
            decoded[missing], labels[missing] = source.get(missing)
            is_decoded[missing] = True
        return decoded[indices], labels[indices]

    return dataclasses.replace(source, get=get)


def to_float(pixels: np.ndarray) -> np.ndarray:
    """Returns uint8 images in 0..255 as float32 in [-1, 1]: `x / 127.5 - 1`."""
    return pixels.astype(np.float32) / np.float32(127.5) - np.float32(1)


class Batches(Iterator):
    """Endless shuffled batches for one process, with a position that can be saved and restored.

    Epoch e visits the examples in the order of a permutation drawn from (seed, e). A global batch
    takes the next `batch_size` examples and, where an epoch ends inside it, goes on with the next
    epoch. Process p of P takes the p-th of P contiguous parts of each global batch. The whole state
    is one number: how many examples all processes together have consumed.

    With `source.flip`, each place of an epoch's order is mirrored, left to right, with probability 1/2,
    also drawn from (seed, e). Whether an example is mirrored thus depends on its position in the stream
    alone, and the order is the same with and without flips.

    Raises UserError if `batch_size` is not a positive multiple of `process_count`, or if the source
    holds no example.
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
        self._epochs: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the order of an epoch, int64 [count], and which of its places are mirrored, bool.

        Those of the epochs long past are forgotten.
        """
        if epoch not in self._epochs:
            generator = np.random.default_rng((self.seed, epoch))
            self._epochs = {
                drawn: draws for drawn, draws in self._epochs.items() if drawn >= epoch - 1
            }
            order = generator.permutation(self.source.count)  # first: flips must not change it
            self._epochs[epoch] = order, generator.integers(2, size=self.source.count) == 1
        return self._epochs[epoch]

    def __next__(self) -> dict[str, np.ndarray]:
        first = self.consumed + self._offset
        positions = np.arange(first, first + self._part)
        epochs, places = np.divmod(positions, self.source.count)
        indices, mirrored = np.empty(self._part, np.int64), np.empty(self._part, bool)
        for epoch in np.unique(epochs):
            in_epoch = epochs == epoch
            order, flips = self._epoch(int(epoch))
            indices[in_epoch] = order[places[in_epoch]]
            mirrored[in_epoch] = flips[places[in_epoch]]
        pixels, labels = self.source.get(indices)
        if self.source.flip:
            pixels = np.where(mirrored[:, None, None, None], pixels[:, :, ::-1], pixels)
        self.consumed += self.batch_size
        return {'image': to_float(pixels), 'label': labels.astype(np.int32)}

    def state(self) -> dict[str, int]:
        """Returns the position, from which `restore` continues."""
        return {'consumed': self.consumed}

    def restore(self, state: dict[str, int]) -> None:
        """Continues from a position that `state` returned."""
        self.consumed = int(state['consumed'])
