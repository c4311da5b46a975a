"""Pooled pixels as features: extractors without a network and without weights.

    pixel        x [B,H,W,C] -> mean over C -> 8x8 -> [B,64]
    pixel_rgb    x [B,H,W,3] -> 8x8 -> [B,192], in the order row, column, channel

The step to 8x8 is `jax.image.resize(..., 'linear', antialias=True)`: a weighted average of the pixels
around each of the 64 places, whose triangle filter widens as the image shrinks. Images of 8x8 stay as
they are. All is float32, and the features are in [-1,1] as the pixels are.

A few dozen numbers of an image see its brightness, its colours (pixel_rgb alone) and how they are laid
out, and nothing of the detail of shapes: a blurred image can be as good as a sharp one. A distance in
these features is a second opinion beside one in learned features, and no replacement for it.
"""

import hashlib
from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from cm_jax.errors import UserError, check_name
from cm_jax.types import Array, Extractor, Params

SIDE = 8
RGB = 3  # the channels that pixel_rgb takes


def features(params: Params, x: Array) -> Array:
    """Returns the features [B,64] of images [B,H,W,C] in [-1,1]; `params` are not used."""
    del params
    chex.assert_rank(x, 4)
    return pooled(jnp.mean(x.astype(jnp.float32), axis=-1, keepdims=True))


def features_rgb(params: Params, x: Array) -> Array:
    """Returns the features [B,192] of images [B,H,W,3] in [-1,1]; `params` are not used.

    Raises UserError, before anything is computed, if the images do not have three channels.
    """
    del params
    chex.assert_rank(x, 4)
    if x.shape[-1] != RGB:
        raise UserError(
            f"the extractor 'pixel_rgb' cannot take images with {x.shape[-1]} channels; legal: {RGB}, "
            "and any number for the extractor 'pixel'"
        )
    return pooled(x.astype(jnp.float32))


def pooled(x: Array) -> Array:
    """Returns images [B,H,W,C] resized to 8x8, as rows [B, 64 C]."""
    batch, _, _, channels = x.shape
    shape = (batch, SIDE, SIDE, channels)
    x = jax.image.resize(x, shape, 'linear', antialias=True, precision='highest')
    return x.reshape(batch, -1)


class Space(NamedTuple):
    """One of the extractors: its function, its number of features, and how it resizes."""

    apply: Callable[[Params, Array], Array]
    dim: int
    resize: str


SPACES = {
    'pixel': Space(features, SIDE**2, 'mean over channels, linear with antialiasing to 8x8'),
    'pixel_rgb': Space(features_rgb, RGB * SIDE**2, 'linear with antialiasing to 8x8'),
}


def formula(name: str) -> str:
    """Returns the text that states all of an extractor's features; its sha256 is the checksum."""
    return f'images in [-1,1], {SPACES[name].resize}, flattened by row, column and channel, float32'


def extractor(name: str) -> Extractor:
    """Returns the extractor 'pixel' or 'pixel_rgb'. Raises UserError on another name."""
    check_name('extractor of pixels', name, SPACES)
    space = SPACES[name]
    return Extractor(
        name=name,
        score=f'fd_{name}',
        dim=space.dim,
        apply=space.apply,
        params={},
        logits=None,
        checksum=hashlib.sha256(formula(name).encode()).hexdigest(),
        resize=space.resize,
    )
