"""The embedded default: scikit-learn's digits, 1,797 grey images of 8x8 in 10 classes.

They are the test half of UCI's "Optical Recognition of Handwritten Digits" (13 writers), 17 grey
levels. Nothing is downloaded. Splits: 'train', the first 1,500; 'test', the other 297; 'all'.
"""

import functools

import numpy as np
import sklearn.datasets

from cm_jax.data import Source
from cm_jax.errors import check_name

SPLITS = {'train': slice(0, 1500), 'test': slice(1500, 1797), 'all': slice(0, 1797)}


@functools.cache
def _load() -> tuple[np.ndarray, np.ndarray]:
    bunch = sklearn.datasets.load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    return images, bunch.target.astype(np.int32)


def open_source(split: str = 'train') -> Source:
    """Opens one of SPLITS; raises UserError on another name."""
    check_name('split of digits', split, SPLITS)
    images, labels = (array[SPLITS[split]] for array in _load())

    def get(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return images[indices], labels[indices]

    return Source('digits', split, len(images), (8, 8, 1), 10, get)
