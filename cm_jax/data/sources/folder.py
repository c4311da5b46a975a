"""A folder of images of one size: `path/[train|test|...]/[class]/name.png`.

The rules for splits, classes and colour are those of images.py. `python -m cm_jax.prepare` turns
such a folder into records, which are read faster and may start from images of any size.
"""

import os
import pathlib

import numpy as np

from cm_jax.data import Source, images
from cm_jax.errors import UserError, check_name


def file_names(path: pathlib.Path) -> list[str]:
    """The relative names, with '/', of all files below `path`."""
    return [
        (pathlib.Path(folder) / name).relative_to(path).as_posix()
        for folder, _, names in os.walk(path, followlinks=True)
        for name in names
    ]


def open_source(split: str, path: str) -> Source:
    """Opens one split of the folder `path`; num_classes is 0 where there are no class folders.

    A folder without split folders has the one split 'train'. Colour and size are those of the whole
    folder, so that its splits agree. Raises UserError on a folder that is missing or empty, on
    images of different sizes, and on another split.
    """
    root = pathlib.Path(path).expanduser()
    if not path or not root.is_dir():
        raise UserError(f'config.dataset.path {path!r} is no folder; give a folder of images')
    found = images.layout(file_names(root), str(root))
    check_name(f'split of {root}', split, found.splits)
    every = (name for entries in found.splits.values() for name, _ in entries)
    shape = images.common_shape((n, images.header(root / n, str(root / n))) for n in every)
    names = [name for name, _ in found.splits[split]]
    labels = np.array([label for _, label in found.splits[split]], np.int32)

    def get(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        files = [root / names[i] for i in indices]
        return np.stack([images.pixels(f, str(f), shape[-1]) for f in files]), labels[indices]

    return Source('folder', split, len(names), shape, len(found.class_names), get)
