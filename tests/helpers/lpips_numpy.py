"""The networks of LPIPS in NumPy and float64."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from tests.helpers.lpips_weights import LAYERS, SCALE, SHIFT


def windows(x, size, stride):
    return sliding_window_view(x, (size, size), axis=(2, 3))[:, :, ::stride, ::stride]


def numpy_maps(x, network, features, pooling):
    """The feature maps [B,C,H,W] of images [B,H,W,3]."""
    x = ((x.astype(np.float64) - SHIFT) / SCALE).transpose(0, 3, 1, 2)
    maps = []
    for first, *rest in LAYERS[network]:
        if first == 'pool':
            view = windows(x, int(rest[0]), 2)
            x = view.max((4, 5)) if pooling == 'max' else view.mean((4, 5))
            continue
        size, stride, padding = map(int, rest[2:5])
        x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
        weight, bias = features[f'features.{first}.weight'], features[f'features.{first}.bias']
        x = np.tensordot(windows(x, size, stride), weight, ((1, 4, 5), (1, 2, 3))) + bias
        x = np.maximum(x, 0).transpose(0, 3, 1, 2)
        if rest[-1] == '+':
            maps.append(x)
    return maps
