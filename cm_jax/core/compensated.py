"""Sums of products in twice float32's precision: what a combination of checkpoints is made with.

A sum is the unevaluated high + low, two float32. To add c x, c and x are cut into halves of 12 bits,
c = c' + c'', x = x' + x'', so that c' x' is exact in float32, and

    high, error <- TwoSum(high, c' x')         low <- low + (error + (c x'' + c'' x'))

with Knuth's TwoSum and the halves of Dekker 1971, "A floating-point technique for extending the
available precision", cut by their bits. A compiler that rounds a product and a sum once instead of
twice changes nothing that counts, as the product is exact.

The sum of K products is then within a rounding of the exact one: 2^-24 |sum| + about K 2^-36 of the
largest term. Plain float32 leaves K^1/2 2^-24 of the largest term.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from cm_jax.types import Array

HALF = 0xFFFFF000  # sign, exponent and the first 12 bits of a float32, one of them implied


class Sum(NamedTuple):
    """high + low, float32 arrays of one shape."""

    high: Array
    low: Array


def zero(shape: tuple[int, ...]) -> Sum:
    """The empty sum; -0 is what leaves every number as it is, also -0 itself."""
    return Sum(jnp.full(shape, -0.0, jnp.float32), jnp.zeros(shape, jnp.float32))


def add(total: Sum, c: Array, x: Array) -> Sum:
    """total + c x, for a scalar c. Where c is 0 x is left out, whatever it holds; c = 1 is exact."""
    c, x = jnp.asarray(c, jnp.float32), x.astype(jnp.float32)
    upper = jnp.where(c == 1, x, _half(x))
    top = _half(c)
    product = top * upper
    high = total.high + product
    back = high - total.high
    error = (total.high - (high - back)) + (product - back)
    low = total.low + (error + (c * (x - upper) + (c - top) * upper))
    return Sum(jnp.where(c == 0, total.high, high), jnp.where(c == 0, total.low, low))


def value(total: Sum) -> Array:
    """The sum in float32."""
    return jnp.where(total.low == 0, total.high, total.high + total.low)


def _half(x: Array) -> Array:
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32) & jnp.uint32(HALF)
    return jax.lax.bitcast_convert_type(bits, jnp.float32)
