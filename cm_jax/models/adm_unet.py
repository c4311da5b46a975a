"""The ADM U-Net of Dhariwal and Nichol in EDM's form (`DhariwalUNet`), with its sizes as settings.

Sources: arXiv 2105.05233, appendix; arXiv 2206.00364, table 7. It differs from `song_unet` so:
- the embedding scales and shifts the output of a block's second norm, instead of being added;
- attention has several heads, and all blocks of an attending resolution attend;
- residual sums are not scaled;
- where a block resamples, its skip connection resamples without a convolution.

OpenAI's consistency models (arXiv 2303.01469) and their EDM teachers use the same network, operation
for operation, but their noise input is 250 ln t, where EDM's is ln(t)/4. With `noise_scale=1000`
their weights fit EDM's scalings. Those on LSUN have `scale_shift=False`: the embedding is added before
the second norm, as in `song_unet`.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cm_jax.bounds import Pixels, Positive, Rate, Share
from cm_jax.models import Model, unet
from cm_jax.models.layers import (
    Initializer,
    embed_times,
    group_norm,
    multi_head_attention,
    resample,
)
from cm_jax.types import Array

add_time = unet.add_time

EPSILON = 1e-5  # added to the variance in the group norms


def uniform(fan_in: int) -> Initializer:
    """Returns the initializer U(-a, a), a = 1/sqrt(fan_in): PyTorch's, for kernels and biases."""
    bound = fan_in**-0.5
    return lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -bound, bound)


def dense(x: Array, features: int, name: str, dtype: Any = None, zero: bool = False) -> Array:
    """Applies a dense layer, x W + b over the last axis; `zero` initialises W and b with zeros."""
    init = nn.initializers.zeros if zero else uniform(x.shape[-1])
    return nn.Dense(features, dtype=dtype, kernel_init=init, bias_init=init, name=name)(x)


def conv(x: Array, features: int, size: int, name: str, dtype: Any, zero: bool = False) -> Array:
    """Applies a size x size convolution with bias that keeps the resolution.

    `zero` initialises kernel and bias with zeros.
    """
    init = nn.initializers.zeros if zero else uniform(size**2 * x.shape[-1])
    inits = {'kernel_init': init, 'bias_init': init, 'dtype': dtype, 'name': name}
    return nn.Conv(features, (size, size), **inits)(x)


def positional_embedding(c: Array, channels: int) -> Array:
    """Returns ADM's embedding of a noise input: c [B] -> [B, channels], float32.

    It is [cos(c w_i), sin(c w_i)] with w_i = 10000^{-i/n}, i = 0 .. n-1, n = channels/2. DDPM++'s
    (`layers.positional_embedding`) has the sines first, and its lowest frequency is exactly 1/10000.
    """
    n = channels // 2
    frequencies = (1 / 10000) ** (jnp.arange(n, dtype=jnp.float32) / n)
    angles = c.astype(jnp.float32)[:, None] * frequencies[None]
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=1)


class Block(nn.Module):
    """A residual block, followed by attention if it has heads.

    The residual branch is: norm, silu, convolution, norm scaled and shifted by the embedding, silu,
    dropout, convolution. Without `scale_shift` the embedding is added before the second norm.
    """

    features: int
    dropout: float
    dtype: Any
    heads: int = 0  # of attention; 0 means that the block does not attend
    resample: str = ''
    scale_shift: bool = True

    @nn.compact
    def __call__(self, x: Array, emb: Array) -> Array:
        channels = x.shape[-1]
        h = nn.silu(group_norm(channels, 'norm0', self.dtype, EPSILON)(x))
        h = conv(resample(h, self.resample), self.features, 3, 'conv0', self.dtype)
        width = 2 * self.features if self.scale_shift else self.features
        film = dense(emb, width, 'affine')[:, None, None]
        norm = group_norm(self.features, 'norm1', jnp.float32, EPSILON)
        if self.scale_shift:
            scale, shift = jnp.split(film, 2, axis=-1)
            h = norm(h) * (1 + scale) + shift
        else:
            h = norm(h + film)
        h = nn.silu(h).astype(self.dtype)
        h = nn.Dropout(self.dropout, deterministic=False)(h)
        h = conv(h, self.features, 3, 'conv1', self.dtype, zero=True)
        x = resample(x, self.resample)
        if self.features != channels:
            x = conv(x, self.features, 1, 'skip', self.dtype)
        x = x + h
        return self._attend(x) if self.heads else x

    def _attend(self, x: Array) -> Array:
        b, height, width, c = x.shape
        h = group_norm(c, 'norm2', self.dtype, EPSILON)(x).reshape(b, height * width, c)
        q, k, v = jnp.split(dense(h, 3 * c, 'qkv', self.dtype), 3, axis=-1)
        h = multi_head_attention(q, k, v, self.heads)
        return x + dense(h, c, 'proj', self.dtype, zero=True).reshape(x.shape)


class AdmUNet(nn.Module):
    """The network described above; `build` explains its fields, `unet.as_model` how it is called."""

    channels: int
    widths: tuple[int, ...]
    num_blocks: int
    attn_resolutions: tuple[int, ...]
    channels_per_head: int
    dropout: float
    dtype: Any
    channel_mult_emb: int
    noise_scale: float
    skip_scaling: float | None
    remat: tuple[int, ...]
    scale_shift: bool

    @nn.compact
    def __call__(self, x: Array, noise: Array, label: Array, augment: Array, train: bool) -> Array:
        height, out_channels = x.shape[1], x.shape[-1]
        emb = self._embed(noise * self.noise_scale, label, augment)
        phi = unet.skip_weights(noise[:, 0], self.skip_scaling)
        block_at = unet.rematerialised(Block, self.remat)
        rate = self.dropout if train else 0.0

        def block(stage: unet.Stage, x: Array) -> Array:
            heads = stage.channels // self.channels_per_head if stage.attend else 0
            layer = block_at(stage.resolution)(
                features=stage.channels,
                dropout=rate,
                dtype=self.dtype,
                heads=heads,
                resample=stage.resample,
                scale_shift=self.scale_shift,
                name=stage.name,
            )
            return layer(x, emb)

        sizes = (height, self.widths, self.num_blocks, self.attn_resolutions)
        x = conv(x.astype(self.dtype), self.widths[0], 3, f'enc_{height}_conv', self.dtype)
        skips = [x]
        for stage in unet.encoder(*sizes):
            x = block(stage, x)
            skips.append(x)
        for stage in unet.decoder(*sizes):
            x = block(stage, unet.join(x, skips.pop(), phi) if stage.joins else x)
        x = nn.silu(group_norm(x.shape[-1], 'out_norm', jnp.float32, EPSILON)(x))
        return conv(x, out_channels, 3, 'out_conv', jnp.float32, zero=True)

    def _embed(self, noise: Array, label: Array, augment: Array) -> Array:
        """Returns the embedding of the times, class and augmentation labels, float32.

        Its shape is [B, channels * channel_mult_emb].
        """
        features = self.channels * self.channel_mult_emb
        emb = embed_times(lambda time: positional_embedding(time, self.channels), noise)
        if augment.shape[1]:
            zero = nn.initializers.zeros
            mapped = nn.Dense(emb.shape[1], use_bias=False, kernel_init=zero, name='map_augment')
            emb = emb + mapped(augment)
        emb = nn.silu(dense(emb, features, 'map_layer0'))
        emb = dense(emb, features, 'map_layer1')
        if label.shape[1]:
            normal = nn.initializers.normal(1.0)
            mapped = nn.Dense(features, use_bias=False, kernel_init=normal, name='map_label')
            emb = emb + mapped(label)
        return nn.silu(emb)


def build(
    image_shape: tuple[int, int, int],
    num_classes: int,
    channels: unet.Channels = 192,
    channel_mult: Sequence[unet.Multiplier] = (1, 2, 3, 4),
    num_blocks: unet.Blocks = 3,
    attn_resolutions: Sequence[Pixels] = (32, 16, 8),
    dropout: Rate = 0.0,
    dtype: str = 'float32',
    precision: str = 'default',
    channels_per_head: unet.HeadChannels = 64,
    channel_mult_emb: unet.Multiplier = 4,
    augment_dim: unet.AugmentDim = 0,
    label_dropout: Rate = 0.0,
    noise_scale: Positive = 1.0,
    skip_scaling: Share | None = None,
    remat: Sequence[Pixels] = (),
    scale_shift: bool = True,
    times: unet.Times = 1,
) -> Model:
    """Returns an ADM network; the defaults are EDM's ImageNet-64 network.

    Args:
      image_shape: (H, W, C); H and W must be divisible by 2^(resolutions - 1).
      num_classes: 0 for an unconditional network.
      channels: width of a block before its multiplier, divisible by 4.
      channel_mult: one multiplier, at least 1, for each resolution, finest first.
      num_blocks: residual blocks at each resolution of the encoder, at least 1; the decoder has one
        more.
      attn_resolutions: image heights at which blocks attend (the middle block always does).
      dropout: probability of dropout, in [0, 1).
      dtype: the dtype of the computation, one of unet.DTYPES; parameters, embeddings and the output
        stay float32.
      precision: that of all convolutions and matrix products, one of core.precision.PRECISIONS.
      channels_per_head: an attending block has channels // channels_per_head heads; where that is 0
        it does not attend, as in EDM.
      channel_mult_emb: width of the embedding that the blocks are given, as a multiple of `channels`.
      augment_dim: the number of augmentation labels in `cond` after the noise level; EDM has 9.
      label_dropout: probability with which training replaces a label by "no class", in [0, 1).
      noise_scale: factor by which the noise input, or each time, is multiplied: 1 for EDM's weights,
        1000 for OpenAI's weights under EDM's scalings.
      skip_scaling: CUD's phi, as `song_unet.build` explains; None means no scaling.
      remat: image heights whose blocks are computed a second time in the backward pass, to save memory.
      scale_shift: whether the embedding scales and shifts the output of a block's second norm, as in
        ADM. Else it is added before that norm, as in OpenAI's consistency models on LSUN.
      times: the number of times in `cond`, 1 or 2, as `song_unet.build` explains.

    Raises UserError if sizes contradict each other, or a name is unknown.
    """
    unet.check_sizes(image_shape, channels, channel_mult, remat)
    widths = tuple(channels * mult for mult in channel_mult)
    unet.check_heads(image_shape[0], widths, attn_resolutions, channels_per_head)
    module = AdmUNet(
        channels=channels,
        widths=widths,
        num_blocks=num_blocks,
        attn_resolutions=tuple(attn_resolutions),
        channels_per_head=channels_per_head,
        dropout=dropout,
        dtype=unet.compute_dtype(dtype),
        channel_mult_emb=channel_mult_emb,
        noise_scale=noise_scale,
        skip_scaling=skip_scaling,
        remat=tuple(remat),
        scale_shift=scale_shift,
    )
    return unet.as_model(
        module,
        image_shape,
        num_classes,
        augment_dim,
        label_dropout,
        precision=precision,
        times=times,
    )
