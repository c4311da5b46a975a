"""Data cards: what they hold, and that they notice other data."""

import dataclasses

import numpy as np
import pytest

from cm_jax import data
from cm_jax.data import card
from cm_jax.errors import UserError
from tests.helpers.sources import numbered


def test_a_card_holds_what_it_says():
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (40, 4, 6, 3), np.uint8)
    source = data.Source(
        name='x',
        split='train',
        count=40,
        image_shape=(4, 6, 3),
        num_classes=5,
        get=lambda indices: (pixels[indices], indices.astype(np.int32)),
    )
    made = card.make(source)
    floats = pixels.astype(np.float64) / 127.5 - 1
    np.testing.assert_allclose(made['mean'], floats.mean((0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(made['std'], floats.std((0, 1, 2)), atol=1e-6)
    assert made['count'] == made['examples'] == 40 and made['image_shape'] == [4, 6, 3]
    assert card.make(source, 7)['examples'] == 7


def test_a_card_does_not_depend_on_the_chunks(monkeypatch):
    source = numbered(40)
    made = card.make(source)
    monkeypatch.setattr(card, 'CHUNK_BYTES', 12)
    assert card.make(source) == made


def test_a_card_notices_other_data_and_names_the_fields():
    source = numbered(40, num_classes=10)
    made = card.make(source, 20)
    card.check(made, source)
    with pytest.raises(UserError, match=r'count is 44, the card says 40'):
        card.check(made, numbered(44, num_classes=10))
    # One pixel, far too little for the rounded mean, and one label.
    for brighter, other_label in ((1, 0), (0, 1)):

        def get(indices, brighter=brighter, other_label=other_label):
            pixels, labels = source.get(indices)
            pixels[0, 0, 0, 0] += brighter * (indices[0] == 0)
            labels[0] += other_label
            return pixels, labels

        with pytest.raises(UserError, match=r'checksum is'):
            card.check(made, dataclasses.replace(source, get=get))
