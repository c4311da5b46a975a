"""Layers that the networks share, NHWC."""

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cm_jax.core.tree import FIXED
from cm_jax.types import Array

Initializer = Any


def xavier_uniform(scale: float = 1.0) -> Initializer:
    """U(-a, a) with a = scale sqrt(6 / (fan_in + fan_out)): EDM's initialisation of SongUNet."""
    return jax.nn.initializers.variance_scaling(scale**2, 'fan_avg', 'uniform')


def positional_embedding(c: Array, channels: int) -> Array:
    """[sin, cos] of c w_i, w_i = 10000^{-i/(n-1)}, i = 0 .. n-1, n = channels/2 (DDPM++).

    c [B] -> [B, channels], float32.
    """
    n = channels // 2
    frequencies = (1 / 10000) ** (jnp.arange(n, dtype=jnp.float32) / (n - 1))
    angles = c.astype(jnp.float32)[:, None] * frequencies[None]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1)


class FourierEmbedding(nn.Module):
    """[sin, cos] of 2 pi c w_i, w_i ~ N(0, scale^2) drawn once (NCSN++). c [B] -> [B, channels].

    The frequencies are a constant of the network: a leaf of params, for they belong to its weights,
    whose gradient is zero, so that an optimiser without weight decay leaves it as it is.
    """

    channels: int
    scale: float

    @nn.compact
    def __call__(self, c: Array) -> Array:
        init = nn.initializers.normal(self.scale)
        frequencies = self.param(FIXED + 'freqs', init, (self.channels // 2,))
        angles = 2 * math.pi * c[:, None] * jax.lax.stop_gradient(frequencies)[None]
        return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1)


def conv(features: int, size: int, scale: float, name: str, dtype: Any) -> nn.Conv:
    """A size x size convolution with bias, stride 1, that keeps the resolution."""
    init = xavier_uniform(scale)
    return nn.Conv(features, (size, size), kernel_init=init, dtype=dtype, name=name)


def group_norm(channels: int, name: str, dtype: Any, epsilon: float = 1e-6) -> nn.GroupNorm:
    """Group normalisation with min(32, channels / 4) groups or the next divisor below."""
    groups = next(g for g in range(min(32, channels // 4), 0, -1) if channels % g == 0)
    return nn.GroupNorm(groups, epsilon=epsilon, dtype=dtype, name=name)


def halve(x: Array) -> Array:
    """[B,H,W,C] -> [B,H/2,W/2,C]: the mean of each 2x2 square (resampling filter [1, 1])."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))


def double(x: Array) -> Array:
    """[B,H,W,C] -> [B,2H,2W,C]: each value four times (resampling filter [1, 1])."""
    b, h, w, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c))
    return x.reshape(b, 2 * h, 2 * w, c)


def filter_down(x: Array, taps: Sequence[int], pad: int) -> Array:
    """Filters with `taps` (an even number of them, normalised) along H and W and halves both.

    [B,H,W,C] with `pad` zeros around -> every second of the values; pad = len(taps)/2 - 1 gives
    [B,H/2,W/2,C].
    """
    for axis in (1, 2):
        edges = [(0, 0)] * 4
        edges[axis] = (pad, pad)
        padded = jnp.pad(x, edges)
        last = padded.shape[axis] - len(taps)
        x = sum(
            tap / sum(taps) * jax.lax.slice_in_dim(padded, i, i + last + 1, stride=2, axis=axis)
            for i, tap in enumerate(taps)
        )
    return x


def filter_up(x: Array, taps: Sequence[int]) -> Array:
    """[B,H,W,C] -> [B,2H,2W,C]: zeros between the values, then symmetric `taps` that sum to 2."""
    edge = len(taps) // 2
    for axis in (1, 2):
        config = [(0, 0, 0)] * 4
        config[axis] = (edge, edge, 1)
        spread = jax.lax.pad(x, jnp.zeros((), x.dtype), config)
        size = 2 * x.shape[axis]
        x = sum(
            2 * tap / sum(taps) * jax.lax.slice_in_dim(spread, i, i + size, axis=axis)
            for i, tap in enumerate(taps)
        )
    return x


def resample(x: Array, mode: str, taps: Sequence[int] = (1, 1)) -> Array:
    """[B,H,W,C] -> the same ('') or half ('down') or twice ('up') the size, by the filter `taps`."""
    if not mode:
        return x
    if tuple(taps) == (1, 1):
        return halve(x) if mode == 'down' else double(x)
    return filter_down(x, taps, len(taps) // 2 - 1) if mode == 'down' else filter_up(x, taps)


def attention(q: Array, k: Array, v: Array) -> Array:
    """softmax(q k' / sqrt(C)) v over positions, one head; all [B, N, C]; the softmax in float32."""
    k = k / jnp.sqrt(k.shape[-1]).astype(k.dtype)
    logits = jnp.einsum('bqc,bkc->bqk', q, k, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(logits, axis=-1).astype(q.dtype)
    return jnp.einsum('bqk,bkc->bqc', weights, v)


def multi_head_attention(q: Array, k: Array, v: Array, heads: int) -> Array:
    """`attention` within each of `heads` equal parts of the channels; all [B, N, C]."""
    q, k, v = (a.reshape(*a.shape[:2], heads, -1) for a in (q, k, v))
    return jax.vmap(attention, in_axes=2, out_axes=2)(q, k, v).reshape(*q.shape[:2], -1)
