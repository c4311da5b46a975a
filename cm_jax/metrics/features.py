"""The features of generated images, which are rounded as a stored picture before they are measured."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from cm_jax.types import Array, Extractor, Params

ROUNDING = 'clip(round(127.5*x + 127.5), 0, 255)'  # protocols store this text


def round_uint8(x: Array) -> Array:
    """Returns images with values in [-1,1] rounded to the 256 grey levels of a picture, float32.

    With the byte u = ROUNDING the result is u / 127.5 - 1, in [-1,1] again. It equals what
    data.to_float makes of the byte u, except for the last digit of float32 (XLA multiplies by
    1 / 127.5). A value half-way between two bytes goes to the even one; NaN stays NaN.
    """
    return _byte(x) / 127.5 - 1


def to_bytes(x: Array) -> Array:
    """Returns the bytes of the stored picture, uint8 in 0..255. NaN becomes 0."""
    return jnp.nan_to_num(_byte(x)).astype(jnp.uint8)


def _byte(x: Array) -> Array:
    return jnp.clip(jnp.round(127.5 * x.astype(jnp.float32) + 127.5), 0, 255)


@jax.custom_jvp
def round_straight_through(x: Array) -> Array:
    """Returns round_uint8(x), with the derivative of a clip to [-1, 1]: 1 inside and 0 outside.

    Rounding has the derivative 0 wherever it has one. The straight-through estimate (Bengio et al.,
    arXiv 1308.3432) passes it over.
    """
    return round_uint8(x)


@round_straight_through.defjvp
def _round_straight_through_jvp(
    primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Array, Array]:
    (x,), (tangent,) = primals, tangents
    return round_uint8(x), jnp.where(jnp.abs(x) <= 1, tangent, 0).astype(jnp.float32)


def of_samples(
    extractor: Extractor,
    params: Params,
    x0: Array,
    rounding: Callable[[Array], Array] = round_uint8,
) -> Array:
    """Returns the features [B, dim] of generated images [B,H,W,C], which are rounded first.

    `params` are the weights of the extractor; a jitted program should take them as an argument. An
    image with a value that is not finite has NaN for all its features, whatever the extractor makes
    of it: the maximum of a pooling layer, for example, can hide a NaN.
    """
    finite = jnp.all(jnp.isfinite(x0.reshape(x0.shape[0], -1)), axis=1, keepdims=True)
    return jnp.where(finite, extractor.apply(params, rounding(x0)), jnp.nan)
