"""A data source of made-up images that say which examples they are."""

import numpy as np

from cm_jax import data


def numbered(count: int, shape=(2, 2, 1), num_classes=0) -> data.Source:
    """A source whose image i is filled with i, so that a batch says which examples it holds."""

    def get(indices):
        pixels = np.broadcast_to(indices.reshape(-1, 1, 1, 1), (len(indices), *shape))
        return pixels.astype(np.uint8), indices.astype(np.int32) % max(num_classes, 1)

    return data.Source(
        name='numbered',
        split='train',
        count=count,
        image_shape=shape,
        num_classes=num_classes,
        get=get,
    )


def sided(count: int, flip: bool = False) -> data.Source:
    """A source whose image i has the pixels (i + 1, 0): one that is mirrored begins with 0."""

    def get(indices):
        pixels = np.zeros((len(indices), 1, 2, 1), np.uint8)
        pixels[:, 0, 0, 0] = indices + 1
        return pixels, indices.astype(np.int32)

    return data.Source(
        name='sided',
        split='train',
        count=count,
        image_shape=(1, 2, 1),
        num_classes=count,
        get=get,
        flip=flip,
    )
