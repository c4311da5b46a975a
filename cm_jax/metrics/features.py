"""The features of generated images, which become the bytes of a picture before they are measured."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from cm_jax.types import Array, Extractor, Params

# How an image in [-1,1] becomes bytes, by the name of the rule: the text that protocols store. The
# codes of EDM, EDM2, ECT and of CUD on CIFAR-10 round; those of Consistency Models, and of CUD on
# ImageNet-64, truncate.
ROUNDING = {
    'round': 'clip(round(127.5*x + 127.5), 0, 255)',
    'truncate': 'floor(clip(127.5*x + 127.5, 0, 255))',
}


def round_uint8(x: Array, rule: str = 'round') -> Array:
    """Returns images with values in [-1,1] on the 256 grey levels of a picture, float32.

    With the byte u = ROUNDING[rule] the result is u / 127.5 - 1, in [-1,1] again. It equals what
    data.to_float makes of the byte u, except for the last digit of float32 (XLA multiplies by
    1 / 127.5). By 'round' a value half-way between two bytes goes to the even one; NaN stays NaN.
    """
    return _byte(x, rule) / 127.5 - 1


def to_bytes(x: Array, rule: str = 'round') -> Array:
    """Returns the bytes of the stored picture, uint8 in 0..255. NaN becomes 0."""
    return jnp.nan_to_num(_byte(x, rule)).astype(jnp.uint8)


def _byte(x: Array, rule: str) -> Array:
    scaled = 127.5 * x.astype(jnp.float32) + 127.5
    whole = {'round': jnp.round, 'truncate': jnp.floor}[rule]
    return jnp.clip(whole(scaled), 0, 255)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def round_straight_through(x: Array, rule: str = 'round') -> Array:
    """Returns round_uint8(x, rule), with the derivative of a clip to [-1, 1]: 1 inside and 0 outside.

    Either rule has the derivative 0 wherever it has one. The straight-through estimate (Bengio et al.,
    arXiv 1308.3432) passes it over.
    """
    return round_uint8(x, rule)


@round_straight_through.defjvp
def _round_straight_through_jvp(
    rule: str, primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Array, Array]:
    (x,), (tangent,) = primals, tangents
    inside = jnp.where(jnp.abs(x) <= 1, tangent, 0).astype(jnp.float32)
    return round_uint8(x, rule), inside


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
