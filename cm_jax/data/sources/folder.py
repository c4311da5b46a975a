"""A folder of images of one size: `path/[train|test|...]/[class]/name.png`.

The rules for splits, classes and colour are those of data/images.py. `python -m cm_jax.prepare`
turns such a folder into records, which are faster to read; it also takes images of different sizes. The
folder that it writes can be given here instead.
"""

import os
import pathlib

import numpy as np
from etils import epath

from cm_jax.data import Source, images
from cm_jax.errors import UserError, check_name
from cm_jax.files import expanded


def file_names(path: pathlib.Path) -> list[str]:
    """Returns the names of all files below `path`, relative to it and with '/' between folders."""
    return [
        (pathlib.Path(folder) / name).relative_to(path).as_posix()
        for folder, _, names in os.walk(path, followlinks=True)
        for name in names
    ]


def open_source(split: str, path: str) -> Source:
    """Opens one split of the folder `path`; num_classes is 0 if there are no class folders.

    A folder that holds a prepared data set is opened as the source tfds does.

    A folder without split folders has only the split 'train'. Colour and size are determined from
    all splits together, so that the images of every split have the same shape. Raises UserError if
    the folder is missing or holds no image, if the images differ in size, or if there is no such
    split.
    """
    root = pathlib.Path(expanded(path))
    if not path or not root.is_dir():
        raise UserError(f'config.dataset.path {path!r} is no folder; give a folder of images')
    if (root / 'features.json').exists():
        from cm_jax.data.sources import tfds  # here, as a folder of images needs no TFDS

        return tfds.open_folder(epath.Path(root), split, str(root))
    layout = images.layout(file_names(root), str(root))
    check_name(f'split of {root}', split, layout.splits)
    shape = images.common_shape(
        (name, images.header(root / name, str(root / name)))
        for entries in layout.splits.values()
        for name, _ in entries
    )
    files = [root / name for name, _ in layout.splits[split]]
    labels = np.array([label for _, label in layout.splits[split]], np.int32)

    def get(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        chosen = [files[index] for index in indices]
        pixels = [images.pixels(file, str(file), shape[-1]) for file in chosen]
        return np.stack(pixels), labels[indices]

    return Source(
        name='folder',
        split=split,
        count=len(files),
        image_shape=shape,
        num_classes=len(layout.class_names),
        get=get,
    )
