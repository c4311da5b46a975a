"""The default data: scikit-learn's digits, 1,797 grey images of 8x8 pixels in 10 classes.

They are the test half of UCI's "Optical Recognition of Handwritten Digits" (13 writers) and have 17
grey levels. They come with scikit-learn, so nothing is downloaded. The split 'train' is the first
1,500 images, 'test' the other 297, and 'all' is all of them.
"""

import functools
import importlib.util
import pathlib
from typing import Any

import numpy as np

from cm_jax.data import Source
from cm_jax.errors import UserError, check_name

SPLITS = {'train': slice(0, 1500), 'test': slice(1500, 1797), 'all': slice(0, 1797)}
# split -> (mean, std, checksum), as card.make measured them with scikit-learn 1.9.1
MEASURED = {
    'train': (
        -0.389685,
        0.749727,
        '0e5e442c0fba1cca1b790a750e202fa168a0e7bf1ea43ba0fb054be067dab0c7',
    ),
    'test': (
        -0.387854,
        0.762013,
        '83025a7cab6ba30de10e3717384b44ab42b7b497d6b1aac831cb0da875668747',
    ),
    'all': (
        -0.389383,
        0.751772,
        'ed5d0ee6d5a61b611d6cad96c6bd69386d32550c51b259a59996b65ad132fa6c',
    ),
}


def _card(split: str) -> dict[str, Any]:
    """Returns the data card of a split.

    `card.check` compares it with the images, and so notices a scikit-learn with other digits.
    """
    mean, std, checksum = MEASURED[split]
    count = SPLITS[split].stop - SPLITS[split].start
    return {
        'name': 'digits',
        'split': split,
        'count': count,
        'image_shape': [8, 8, 1],
        'num_classes': 10,
        'mean': [mean],
        'std': [std],
        'checksum': checksum,
        'examples': count,
    }


@functools.cache
def _load() -> tuple[np.ndarray, np.ndarray]:
    """Returns (images uint8 [1797,8,8,1], labels int32 [1797]), in scikit-learn's order.

    They are read from the file that sklearn.datasets.load_digits reads, whose lines hold 64 values
    and a class. Importing scikit-learn instead would take seconds at the start of every command.
    Raises UserError if scikit-learn is not installed.
    """
    package = importlib.util.find_spec('sklearn')
    if package is None or package.origin is None:
        raise UserError('the digits come with scikit-learn: pip install scikit-learn')
    path = pathlib.Path(package.origin).parent / 'datasets' / 'data' / 'digits.csv.gz'
    table = np.loadtxt(path, delimiter=',')
    images = np.round(table[:, :64].reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    return images, table[:, 64].astype(np.int32)


def open_source(split: str = 'train') -> Source:
    """Opens one of SPLITS. Raises UserError if `split` is none of them."""
    check_name('split of digits', split, SPLITS)
    images, labels = (array[SPLITS[split]] for array in _load())

    def get(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return images[indices], labels[indices]

    return Source(
        name='digits',
        split=split,
        count=len(images),
        image_shape=(8, 8, 1),
        num_classes=10,
        get=get,
        card=_card(split),
    )
