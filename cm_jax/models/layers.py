"""Layers that the networks share, NHWC."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

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


def conv(features: int, size: int, scale: float, name: str, dtype: Any) -> nn.Conv:
    """A size x size convolution with bias, stride 1, that keeps the resolution."""
    init = xavier_uniform(scale)
    return nn.Conv(features, (size, size), kernel_init=init, dtype=dtype, name=name)


def group_norm(channels: int, name: str, dtype: Any) -> nn.GroupNorm:
    """Group normalisation, eps 1e-6, with min(32, channels / 4) groups or the next divisor below."""
    groups = next(g for g in range(min(32, channels // 4), 0, -1) if channels % g == 0)
    return nn.GroupNorm(groups, epsilon=1e-6, dtype=dtype, name=name)


def halve(x: Array) -> Array:
    """[B,H,W,C] -> [B,H/2,W/2,C]: the mean of each 2x2 square (resampling filter [1, 1])."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))


def double(x: Array) -> Array:
    """[B,H,W,C] -> [B,2H,2W,C]: each value four times (resampling filter [1, 1])."""
    b, h, w, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c))
    return x.reshape(b, 2 * h, 2 * w, c)


def attention(q: Array, k: Array, v: Array) -> Array:
    """softmax(q k' / sqrt(C)) v over positions, one head; all [B, N, C]; the softmax in float32."""
    logits = jnp.einsum('bqc,bkc->bqk', q, k / jnp.sqrt(k.shape[-1]).astype(k.dtype))
    weights = jax.nn.softmax(logits.astype(jnp.float32), axis=-1).astype(q.dtype)
    return jnp.einsum('bqk,bkc->bqc', weights, v)
