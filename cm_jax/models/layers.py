"""Layers that several networks share. Images and feature maps are [B,H,W,C] throughout."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cm_jax.core.tree import FIXED
from cm_jax.types import Array, Params

Initializer = Any


def apply(module: nn.Module, params: Params, *args: Any, **kwargs: Any) -> Any:
    """Returns the output of a flax module for its parameters.

    flax types the result of `module.apply` as the output or a pair of output and changed state. No
    network here has state that changes, so it is always the output alone.
    """
    return module.apply({'params': params}, *args, **kwargs)


def xavier_uniform(scale: float = 1.0) -> Initializer:
    """Returns the initializer U(-a, a), a = scale sqrt(6 / (fan_in + fan_out)), of EDM's SongUNet."""
    return jax.nn.initializers.variance_scaling(scale**2, 'fan_avg', 'uniform')


def positional_embedding(c: Array, channels: int) -> Array:
    """Returns DDPM++'s embedding of a noise input: c [B] -> [B, channels], float32.

    It is [sin(c w_i), cos(c w_i)] with w_i = 10000^{-i/(n-1)}, i = 0 .. n-1, n = channels/2.
    """
    n = channels // 2
    frequencies = (1 / 10000) ** (jnp.arange(n, dtype=jnp.float32) / (n - 1))
    angles = c.astype(jnp.float32)[:, None] * frequencies[None]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1)


def embed_times(embed: Callable[[Array], Array], noise: Array) -> Array:
    """Returns the embeddings of the times in noise [B, n], one after the other: [B, n channels].

    `embed` takes one time, [B], to its embedding [B, channels].
    """
    return jnp.concatenate([embed(noise[:, i]) for i in range(noise.shape[1])], axis=1)


class FourierEmbedding(nn.Module):
    """NCSN++'s embedding of a noise input: c [B] -> [B, channels].

    It is [sin(2 pi c w_i), cos(2 pi c w_i)] with w_i ~ N(0, scale^2), drawn once at initialisation.
    The frequencies w_i are constants: they are stored in the parameters, because they belong to the
    network's weights, but their gradient is zero, so an optimiser without weight decay keeps them.
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
    """Returns a size x size convolution with bias and stride 1 that keeps the resolution."""
    init = xavier_uniform(scale)
    return nn.Conv(features, (size, size), kernel_init=init, dtype=dtype, name=name)


def group_norm(channels: int, name: str, dtype: Any, epsilon: float = 1e-6) -> nn.GroupNorm:
    """Returns a group normalisation.

    The number of groups is the largest divisor of `channels` that is at most min(32, channels / 4).
    """
    groups = next(g for g in range(min(32, channels // 4), 0, -1) if channels % g == 0)
    return nn.GroupNorm(groups, epsilon=epsilon, dtype=dtype, name=name)


def halve(x: Array) -> Array:
    """Returns the mean of each 2x2 square, [B,H,W,C] -> [B,H/2,W/2,C] (resampling filter [1, 1])."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))


def double(x: Array) -> Array:
    """Repeats each value in a 2x2 square, [B,H,W,C] -> [B,2H,2W,C] (resampling filter [1, 1])."""
    b, h, w, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c))
    return x.reshape(b, 2 * h, 2 * w, c)


def filter_down(x: Array, taps: Sequence[int], pad: int) -> Array:
    """Filters along H and W and keeps every second value: [B,H,W,C] -> [B,H/2,W/2,C].

    `taps` are the filter's weights, an even number of them; they are divided by their sum. `pad`
    zeros are added on each side of the image first. The result has the shape above for
    pad = len(taps)/2 - 1; another `pad` changes its height and width.
    """
    for axis in (1, 2):
        edges = [(0, 0)] * 4
        edges[axis] = (pad, pad)
        padded = jnp.pad(x, edges)
        last = padded.shape[axis] - len(taps)
        terms = (
            tap / sum(taps) * jax.lax.slice_in_dim(padded, i, i + last + 1, stride=2, axis=axis)
            for i, tap in enumerate(taps)
        )
        x = sum(terms, start=jnp.zeros((), x.dtype))
    return x


def filter_up(x: Array, taps: Sequence[int]) -> Array:
    """Puts zeros between the values and filters along H and W: [B,H,W,C] -> [B,2H,2W,C].

    `taps` are the filter's weights, symmetric; they are scaled so that they sum to 2.
    """
    edge = len(taps) // 2
    for axis in (1, 2):
        config = [(0, 0, 0)] * 4
        config[axis] = (edge, edge, 1)
        spread = jax.lax.pad(x, jnp.zeros((), x.dtype), config)
        size = 2 * x.shape[axis]
        terms = (
            2 * tap / sum(taps) * jax.lax.slice_in_dim(spread, i, i + size, axis=axis)
            for i, tap in enumerate(taps)
        )
        x = sum(terms, start=jnp.zeros((), x.dtype))
    return x


def resample(x: Array, mode: str, taps: Sequence[int] = (1, 1)) -> Array:
    """Changes the height and width of x [B,H,W,C] with the filter `taps`.

    `mode` is '' (x itself is returned), 'down' (half the size) or 'up' (twice the size).
    """
    if not mode:
        return x
    if tuple(taps) == (1, 1):
        return halve(x) if mode == 'down' else double(x)
    return filter_down(x, taps, len(taps) // 2 - 1) if mode == 'down' else filter_up(x, taps)


def attention(q: Array, k: Array, v: Array) -> Array:
    """Returns softmax(q k^T / sqrt(C)) v, attention with one head; all arrays are [B, N, C].

    N counts positions. The softmax is computed in float32.
    """
    k = k / jnp.sqrt(k.shape[-1]).astype(k.dtype)
    logits = jnp.einsum('bqc,bkc->bqk', q, k, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(logits, axis=-1).astype(q.dtype)
    return jnp.einsum('bqk,bkc->bqc', weights, v)


def multi_head_attention(q: Array, k: Array, v: Array, heads: int) -> Array:
    """Applies `attention` to each of `heads` equal parts of the channels; all arrays are [B, N, C]."""
    q, k, v = (a.reshape(*a.shape[:2], heads, -1) for a in (q, k, v))
    return jax.vmap(attention, in_axes=2, out_axes=2)(q, k, v).reshape(*q.shape[:2], -1)
