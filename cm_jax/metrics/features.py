"""What happens to samples before an extractor sees them."""

import jax.numpy as jnp

from cm_jax.types import Array, Extractor, Params

ROUNDING = 'clip(round(127.5*x + 127.5), 0, 255)'  # as protocols store it


def round_uint8(x: Array) -> Array:
    """Rounds to the 256 grey levels of a stored picture: [-1,1] float -> the same, float32.

    u = ROUNDING, returned as u / 127.5 - 1: what data.to_float makes of the byte u, to the last
    float32 digit (XLA multiplies by 1 / 127.5). Half-way cases go to the even byte;
    NaN stays NaN.
    """
    return _byte(x) / 127.5 - 1


def to_bytes(x: Array) -> Array:
    """The stored picture itself, uint8 in 0..255; NaN becomes 0."""
    return jnp.nan_to_num(_byte(x)).astype(jnp.uint8)


def _byte(x: Array) -> Array:
    return jnp.clip(jnp.round(127.5 * x.astype(jnp.float32) + 127.5), 0, 255)


def of_samples(extractor: Extractor, params: Params, x0: Array) -> Array:
    """The features [B, dim] of generated images [B,H,W,C], rounded first.

    `params` are the extractor's, as an argument of the program that this is in. The features of an
    image that is not finite are NaN, whatever the extractor makes of it: the maximum that a pooling
    layer takes can lose a NaN.
    """
    finite = jnp.all(jnp.isfinite(x0.reshape(x0.shape[0], -1)), axis=1, keepdims=True)
    return jnp.where(finite, extractor.apply(params, round_uint8(x0)), jnp.nan)
