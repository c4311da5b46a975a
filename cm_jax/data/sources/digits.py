"""The embedded default: scikit-learn's digits, 1,797 grey images of 8x8 in 10 classes.

They are the test half of UCI's "Optical Recognition of Handwritten Digits" (13 writers), 17 grey
levels. Nothing is downloaded. Splits: 'train', the first 1,500; 'test', the other 297; 'all'.
"""

import functools
import importlib.util
import pathlib
from typing import Any

import numpy as np

from cm_jax.data import Source
from cm_jax.errors import UserError, check_name

SPLITS = {'train': slice(0, 1500), 'test': slice(1500, 1797), 'all': slice(0, 1797)}
MEASURED = {  # mean, std and checksum, as card.make gives them with scikit-learn 1.9.1
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
    """The data card of a split; a scikit-learn with other digits does not match it."""
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
    """The file of sklearn.datasets.load_digits, 64 values and the class a line, without importing
    scikit-learn, which takes seconds at the start of every command."""
    package = importlib.util.find_spec('sklearn')
    if package is None:
        raise UserError('the digits are those of scikit-learn: pip install scikit-learn')
    path = pathlib.Path(package.origin).parent / 'datasets' / 'data' / 'digits.csv.gz'
    table = np.loadtxt(path, delimiter=',')
    images = np.round(table[:, :64].reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    return images, table[:, 64].astype(np.int32)


def open_source(split: str = 'train') -> Source:
    """Opens one of SPLITS; raises UserError on another name."""
    check_name('split of digits', split, SPLITS)
    images, labels = (array[SPLITS[split]] for array in _load())

    def get(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return images[indices], labels[indices]

    return Source('digits', split, len(images), (8, 8, 1), 10, get, _card(split))
