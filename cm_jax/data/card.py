"""The data card: a description of a data set by numbers, which differ when the data differ."""

import hashlib
import os
from typing import Any

import numpy as np
from etils import epath

from cm_jax.data import Source
from cm_jax.errors import UserError
from cm_jax.files import read_json

CHUNK_BYTES = 1 << 22  # of images in memory at a time; their int64 squares take 8 times as much


def make(source: Source, max_examples: int = 10_000) -> dict[str, Any]:
    """Returns the card of a source, as a dict that can be written as JSON.

    `mean` and `std` are those of each channel, for values in [-1, 1]. `checksum` is the sha256 of
    the uint8 images followed by the labels as little-endian int32. These three are computed from
    `examples` examples: from all of them, or from `max_examples` evenly spaced ones if there are
    more.
    """
    examples = min(source.count, max_examples)
    indices = np.arange(examples, dtype=np.int64) * source.count // examples
    digest = hashlib.sha256()
    labels = []
    chunk = max(1, CHUNK_BYTES // int(np.prod(source.image_shape)))
    total = squares = np.zeros(source.image_shape[-1], np.int64)
    for first in range(0, examples, chunk):
        images, chunk_labels = source.get(indices[first : first + chunk])
        digest.update(np.ascontiguousarray(images).tobytes())
        labels.append(chunk_labels.astype('<i4').tobytes())
        # Sums of integers are exact, so the card is the same on every machine.
        total = total + images.sum((0, 1, 2), dtype=np.int64)
        squares = squares + np.square(images, dtype=np.int64).sum((0, 1, 2))
    digest.update(b''.join(labels))
    pixels = examples * source.image_shape[0] * source.image_shape[1]
    mean = total / pixels
    std = np.sqrt(np.maximum(squares / pixels - mean**2, 0))
    return {
        'name': source.name,
        'split': source.split,
        'count': source.count,
        'image_shape': list(source.image_shape),
        'num_classes': source.num_classes,
        'mean': [round(float(value), 6) for value in mean / 127.5 - 1],
        'std': [round(float(value), 6) for value in std / 127.5],
        'checksum': digest.hexdigest(),
        'examples': examples,
    }


def check(card: dict[str, Any], source: Source) -> None:
    """Raises UserError, naming each field that differs, if `source` does not match `card`."""
    current = make(source, card['examples'])
    differing = [
        f'{field} is {value}, the card says {card.get(field)}'
        for field, value in current.items()
        if value != card.get(field)
    ]
    if differing:
        raise UserError(
            f'the data of {source.name}, split {source.split!r}, have changed: '
            f'{"; ".join(differing)}'
        )


def read(path: os.PathLike) -> dict[str, Any]:
    """Returns a card that is stored with a prepared data set. Raises UserError if it is damaged."""
    remedy = f'remove {epath.Path(path).parent} and prepare the data set again'
    return read_json(epath.Path(path), remedy, dict)


def crop_rule(card: dict[str, Any]) -> str:
    """Returns the rule of images.CROPS by which the images of a card were made, or '' if none is known.

    Cards that were written when there was no choice of rules do not name one: images that were resized
    then were made by 'lanczos'.
    """
    size = card.get('made_from', {}).get('size', 0)
    return card.get('crop', 'lanczos' if size else '')


def line(card: dict[str, Any]) -> str:
    """Returns the card as one line of text."""
    shape = 'x'.join(map(str, card['image_shape']))
    rule = f'cropped by {crop_rule(card)}, ' if crop_rule(card) else ''
    mean, std = (' '.join(f'{value:.4f}' for value in card[key]) for key in ('mean', 'std'))
    return (
        f'{card["name"]} {card["split"]}: {card["count"]:,} images {shape}, '
        f'{card["num_classes"]} classes, {rule}mean {mean}, std {std}, '
        f'sha256 {card["checksum"][:16]} over {card["examples"]:,}'
    )
