"""The U-Net of Song et al. in EDM's form (`SongUNet`): DDPM++ and NCSN++, with its sizes as settings.

    setting             DDPM++        NCSN++
    embedding           'positional'  'fourier'
    channel_mult_noise  1             2
    encoder             'standard'    'residual': the image, halved, enters at each resolution
    resample_filter     (1, 1)        (1, 3, 3, 1)

Every residual sum is scaled by sqrt(1/2). arXiv 2011.13456, appendix H; arXiv 2206.00364, table 7.
iCT-deep (arXiv 2310.14189) is NCSN++ with `num_blocks=8`, and iCT's `embedding_scale` is 0.02.
"""

from collections.abc import Sequence
from typing import Annotated, Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from cm_jax.bounds import Count, Interval, Pixels, Positive, Rate, Share
from cm_jax.errors import UserError, check_name
from cm_jax.models import Model, unet
from cm_jax.models.layers import (
    FourierEmbedding,
    attention,
    conv,
    embed_times,
    filter_down,
    group_norm,
    positional_embedding,
    resample,
    xavier_uniform,
)
from cm_jax.types import Array

add_time = unet.add_time

SKIP_SCALE = float(np.sqrt(0.5))
TINY = 1e-5  # initial scale of the last layer of each residual branch
EMBEDDINGS = ('positional', 'fourier')
ENCODERS = ('standard', 'residual')
FILTERS = ((1, 1), (1, 3, 3, 1))


class Block(nn.Module):
    """A residual block, followed by attention if `attend`.

    The residual branch is: norm, silu, convolution, embedding added, norm, silu, dropout, convolution.
    """

    features: int
    dropout: float
    dtype: Any
    resample_filter: tuple[int, ...] = (1, 1)
    resample: str = ''
    attend: bool = False

    @nn.compact
    def __call__(self, x: Array, emb: Array) -> Array:
        channels = x.shape[-1]
        h = nn.silu(group_norm(channels, 'norm0', self.dtype)(x))
        h = resample(h, self.resample, self.resample_filter)
        h = conv(self.features, 3, 1.0, 'conv0', self.dtype)(h)
        shift = nn.Dense(self.features, kernel_init=xavier_uniform(), name='affine')(emb)
        h = h + shift[:, None, None].astype(h.dtype)
        h = nn.silu(group_norm(self.features, 'norm1', self.dtype)(h))
        h = nn.Dropout(self.dropout, deterministic=False)(h)
        h = conv(self.features, 3, TINY, 'conv1', self.dtype)(h)
        if self.features != channels or self.resample:
            x = resample(x, self.resample, self.resample_filter)
            x = conv(self.features, 1, 1.0, 'skip', self.dtype)(x)
        x = (x + h) * SKIP_SCALE
        return self._attend(x) if self.attend else x

    def _attend(self, x: Array) -> Array:
        b, height, width, c = x.shape
        h = group_norm(c, 'norm2', self.dtype)(x).reshape(b, height * width, c)
        project = {'kernel_init': xavier_uniform(float(np.sqrt(0.2))), 'dtype': self.dtype}
        q, k, v = jnp.split(nn.Dense(3 * c, name='qkv', **project)(h), 3, axis=-1)
        h = attention(q, k, v)
        h = nn.Dense(c, kernel_init=xavier_uniform(TINY), dtype=self.dtype, name='proj')(h)
        return (x + h.reshape(x.shape)) * SKIP_SCALE


class SongUNet(nn.Module):
    """The network described above; `build` explains its fields, `unet.as_model` how it is called."""

    channels: int
    widths: tuple[int, ...]
    num_blocks: int
    attn_resolutions: tuple[int, ...]
    dropout: float
    dtype: Any
    embedding: str
    embedding_scale: float
    encoder: str
    resample_filter: tuple[int, ...]
    channel_mult_noise: int
    channel_mult_emb: int
    skip_scaling: float | None
    heads: int
    shared_norm: bool
    remat: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Array, noise: Array, label: Array, augment: Array, train: bool) -> Array:
        height, out_channels = x.shape[1], x.shape[-1]
        emb = self._embed(noise, label, augment)
        phi = unet.skip_weights(noise[:, 0], self.skip_scaling)
        block_at = unet.rematerialised(Block, self.remat)
        rate = self.dropout if train else 0.0

        def block(stage: unet.Stage, x: Array) -> Array:
            layer = block_at(stage.resolution)(
                features=stage.channels,
                dropout=rate,
                dtype=self.dtype,
                resample_filter=self.resample_filter,
                resample=stage.resample,
                attend=stage.attend,
                name=stage.name,
            )
            return layer(x, emb)

        sizes = (height, self.widths, self.num_blocks, self.attn_resolutions)
        image = x = x.astype(self.dtype)
        x = conv(self.channels, 3, 1.0, f'enc_{height}_conv', self.dtype)(x)
        skips = [x]
        for stage in unet.encoder(*sizes):
            x = block(stage, x)
            if stage.resample and self.encoder == 'residual':
                image = x = (x + self._image_branch(stage, image)) * SKIP_SCALE
            skips.append(x)
        for stage in unet.decoder(*sizes, last_attends=True):
            x = block(stage, unet.join(x, skips.pop(), phi) if stage.joins else x)
        if self.shared_norm:
            return self._head(x, 'out', self.heads * out_channels)
        heads = ['out', *(f'head{i}' for i in range(2, self.heads + 1))]
        return jnp.concatenate([self._head(x, name, out_channels) for name in heads], axis=-1)

    def _head(self, x: Array, name: str, channels: int) -> Array:
        """Returns one output of the network, float32: norm, silu and convolution of the features."""
        x = nn.silu(group_norm(x.shape[-1], f'{name}_norm', jnp.float32)(x))
        return conv(channels, 3, TINY, f'{name}_conv', jnp.float32)(x)

    def _image_branch(self, stage: unet.Stage, image: Array) -> Array:
        """Returns the image, convolved and halved, which the residual encoder adds to its features."""
        edge = len(self.resample_filter) // 2 - 1  # extra padding, which the filter removes again
        name = f'enc_{stage.resolution}_aux_residual'
        init = {'kernel_init': xavier_uniform(), 'dtype': self.dtype, 'name': name}
        h = nn.Conv(stage.channels, (3, 3), padding=1 + edge, **init)(image)
        return filter_down(h, self.resample_filter, 0)

    def _embed(self, noise: Array, label: Array, augment: Array) -> Array:
        """Returns the embedding of the times, class and augmentation labels, float32.

        Its shape is [B, channels * channel_mult_emb].
        """
        dense = {'kernel_init': xavier_uniform()}
        channels = self.channels * self.channel_mult_noise
        if self.embedding == 'positional':
            emb = embed_times(lambda time: positional_embedding(time, channels), noise)
        else:
            fourier = FourierEmbedding(channels, self.embedding_scale, name='map_noise')
            emb = embed_times(fourier, noise)
        channels = emb.shape[1]
        if label.shape[1]:
            label = label * np.sqrt(label.shape[1])
            emb = emb + nn.Dense(channels, name='map_label', **dense)(label)
        if augment.shape[1]:
            emb = emb + nn.Dense(channels, use_bias=False, name='map_augment', **dense)(augment)
        features = self.channels * self.channel_mult_emb
        emb = nn.silu(nn.Dense(features, name='map_layer0', **dense)(emb))
        return nn.silu(nn.Dense(features, name='map_layer1', **dense)(emb))


def build(
    image_shape: tuple[int, int, int],
    num_classes: int,
    channels: unet.Channels = 128,
    channel_mult: Sequence[unet.Multiplier] = (2, 2, 2),
    num_blocks: unet.Blocks = 4,
    attn_resolutions: Sequence[Pixels] = (16,),
    dropout: Rate = 0.0,
    dtype: str = 'float32',
    precision: str = 'default',
    embedding: str = 'positional',
    embedding_scale: Positive = 16.0,
    encoder: str = 'standard',
    resample_filter: Sequence[Count] = (1, 1),
    channel_mult_noise: unet.Multiplier = 1,
    channel_mult_emb: unet.Multiplier = 4,
    augment_dim: unet.AugmentDim = 0,
    label_dropout: Rate = 0.0,
    skip_scaling: Share | None = None,
    heads: Annotated[int, Interval('[1, 64]')] = 1,
    shared_norm: bool = False,
    remat: Sequence[Pixels] = (),
    times: unet.Times = 1,
) -> Model:
    """Returns a DDPM++ or NCSN++ network (see the table at the top of this file).

    The defaults are EDM's DDPM++ for CIFAR-10, without augmentation labels.

    Args:
      image_shape: (H, W, C); H and W must be divisible by 2^(resolutions - 1).
      num_classes: 0 for an unconditional network.
      channels: width of the first convolution, and of a block before its multiplier; divisible by 4.
      channel_mult: one multiplier, at least 1, for each resolution, finest first.
      num_blocks: residual blocks at each resolution of the encoder, at least 1; the decoder has one
        more.
      attn_resolutions: image heights at which blocks attend (the coarsest always does, once).
      dropout: probability of dropout, in [0, 1).
      dtype: the dtype of the computation, one of unet.DTYPES; parameters, embeddings and the output
        stay float32.
      precision: that of all convolutions and matrix products, one of core.precision.PRECISIONS.
      embedding: how the noise input is embedded, one of EMBEDDINGS.
      embedding_scale: standard deviation of the Fourier embedding's fixed frequencies.
      encoder: one of ENCODERS.
      resample_filter: one of FILTERS.
      channel_mult_noise: width of the embedding of the noise input, as a multiple of `channels`.
      channel_mult_emb: width of the embedding that the blocks are given, as a multiple of `channels`.
      augment_dim: the number of augmentation labels in `cond` after the noise level; EDM has 9.
      label_dropout: probability with which training replaces a label by "no class", in [0, 1).
      skip_scaling: CUD's phi (arXiv 2305.10769; 0.75 there): with phi(t) = phi + t (1 - 2 phi),
        decoder features are scaled by 2 phi(t) and encoder outputs by 2 (1 - phi(t)) where they
        meet. The noise input must be the time t in [0, 1] itself. None means no scaling.
      heads: the number of outputs, at least 1. Each is computed from the last features by its own norm
        and convolution; they lie one after the other along the channels. CUD has up to 3.
      shared_norm: whether the outputs have one norm and one convolution in common instead, as the two
        of the prior have in CUD's code.
      remat: image heights whose blocks are computed a second time in the backward pass, to save memory.
      times: the number of times in `cond`: 1, the noise input, or 2 for a method of two times. Each is
        embedded by itself, and the embeddings are concatenated. `skip_scaling` takes the first.

    Raises UserError if sizes contradict each other, or a name is unknown.
    """
    unet.check_sizes(image_shape, channels, channel_mult, remat)
    check_name('model.embedding', embedding, EMBEDDINGS)
    check_name('model.encoder', encoder, ENCODERS)
    if tuple(resample_filter) not in FILTERS:
        legal = ', '.join(map(str, FILTERS))
        raise UserError(f'model.resample_filter must be one of {legal}, got {resample_filter}')
    module = SongUNet(
        channels=channels,
        widths=tuple(channels * mult for mult in channel_mult),
        num_blocks=num_blocks,
        attn_resolutions=tuple(attn_resolutions),
        dropout=dropout,
        dtype=unet.compute_dtype(dtype),
        embedding=embedding,
        embedding_scale=embedding_scale,
        encoder=encoder,
        resample_filter=tuple(resample_filter),
        channel_mult_noise=channel_mult_noise,
        channel_mult_emb=channel_mult_emb,
        skip_scaling=skip_scaling,
        heads=heads,
        shared_norm=shared_norm,
        remat=tuple(remat),
    )
    return unet.as_model(
        module, image_shape, num_classes, augment_dim, label_dropout, heads, precision, times
    )
