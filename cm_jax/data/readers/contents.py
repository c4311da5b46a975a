"""What every reader returns, `Contents`, and the helpers that several readers use."""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

LEGAL = (
    'a folder of IDX files (train-images-idx3-ubyte[.gz], ...), cifar-10-python.tar.gz or the '
    'folder unpacked from it, a folder of images, a zip of images'
)


class Contents(NamedTuple):
    """The data set that a reader read from its input files.

    `examples(split)` yields (image uint8 [H,W,C], label), in the order of the input. `kind` names
    the format ('idx', 'cifar10' or 'images'); `files` maps the name of each file or folder that was
    read to its sha256; `counts` maps each split to its number of examples. `class_names` is empty
    where the input has no labels.
    """

    kind: str
    files: dict[str, str]
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    counts: dict[str, int]
    examples: Callable[[str], Iterator[tuple[np.ndarray, int]]]


def in_memory(
    kind: str,
    files: dict[str, str],
    class_names: tuple[str, ...],
    splits: Mapping[str, tuple[np.ndarray, np.ndarray]],
) -> Contents:
    """Returns the Contents of splits held in memory as (images uint8 [n,H,W,C], labels [n])."""
    height, width, channels = next(iter(splits.values()))[0].shape[1:]

    def examples(split: str) -> Iterator[tuple[np.ndarray, int]]:
        pixels, labels = splits[split]
        return ((image, int(label)) for image, label in zip(pixels, labels))

    return Contents(
        kind=kind,
        files=files,
        image_shape=(height, width, channels),
        class_names=class_names,
        counts={split: len(labels) for split, (_, labels) in splits.items()},
        examples=examples,
    )
