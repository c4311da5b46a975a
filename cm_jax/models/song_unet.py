"""The U-Net of Song et al. in EDM's form (`SongUNet`): DDPM++, with its sizes as settings.

Encoder: at each resolution a downsampling block (or the first convolution) and `num_blocks` residual
blocks; decoder: the mirror image with one more block a resolution, each fed one encoder output.
Every residual sum is scaled by sqrt(1/2). arXiv 2011.13456, appendix H; arXiv 2206.00364, table 7.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cm_jax.errors import UserError, check_name
from cm_jax.models import Model
from cm_jax.models.layers import (
    attention,
    conv,
    double,
    group_norm,
    halve,
    positional_embedding,
    xavier_uniform,
)
from cm_jax.types import Array, Key, Params

SKIP_SCALE = float(np.sqrt(0.5))
RESAMPLE = {'': lambda x: x, 'down': halve, 'up': double}
TINY = 1e-5  # initial scale of the last layer of each residual branch
DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}


class Block(nn.Module):
    """Residual block: norm, silu, conv, + embedding, norm, silu, dropout, conv; then attention."""

    features: int
    dropout: float
    dtype: Any
    resample: str = ''
    attend: bool = False

    @nn.compact
    def __call__(self, x: Array, emb: Array, train: bool) -> Array:
        channels, resample = x.shape[-1], RESAMPLE[self.resample]
        h = resample(nn.silu(group_norm(channels, 'norm0', self.dtype)(x)))
        h = conv(self.features, 3, 1.0, 'conv0', self.dtype)(h)
        shift = nn.Dense(self.features, kernel_init=xavier_uniform(), name='affine')(emb)
        h = h + shift[:, None, None].astype(h.dtype)
        h = nn.silu(group_norm(self.features, 'norm1', self.dtype)(h))
        h = nn.Dropout(self.dropout, deterministic=not train)(h)
        h = conv(self.features, 3, TINY, 'conv1', self.dtype)(h)
        if self.features != channels or self.resample:
            x = conv(self.features, 1, 1.0, 'skip', self.dtype)(resample(x))
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
    """See the module; `label` one-hot [B, num_classes] or None."""

    num_classes: int
    channels: int
    channel_mult: tuple[int, ...]
    num_blocks: int
    attn_resolutions: tuple[int, ...]
    dropout: float
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, cond: Array, label: Array | None, train: bool) -> Array:
        out_channels = x.shape[-1]
        emb = self._embed(cond, label)
        blocks = {'dropout': self.dropout, 'dtype': self.dtype}
        x = x.astype(self.dtype)
        skips = []
        for level, mult in enumerate(self.channel_mult):
            features = self.channels * mult
            if level == 0:
                x = conv(self.channels, 3, 1.0, f'enc_{x.shape[1]}_conv', self.dtype)(x)
            else:
                down = Block(
                    x.shape[-1], resample='down', name=f'enc_{x.shape[1] // 2}_down', **blocks
                )
                x = down(x, emb, train)
            skips.append(x)
            for i in range(self.num_blocks):
                res = x.shape[1]
                attend = res in self.attn_resolutions
                x = Block(features, attend=attend, name=f'enc_{res}_block{i}', **blocks)(
                    x, emb, train
                )
                skips.append(x)
        for level, mult in reversed(list(enumerate(self.channel_mult))):
            features = self.channels * mult
            res = x.shape[1]
            if level == len(self.channel_mult) - 1:
                x = Block(features, attend=True, name=f'dec_{res}_in0', **blocks)(x, emb, train)
                x = Block(features, name=f'dec_{res}_in1', **blocks)(x, emb, train)
            else:
                res *= 2
                up = Block(x.shape[-1], resample='up', name=f'dec_{res}_up', **blocks)
                x = up(x, emb, train)
            for i in range(self.num_blocks + 1):
                attend = i == self.num_blocks and res in self.attn_resolutions
                x = jnp.concatenate([x, skips.pop()], axis=-1)
                x = Block(features, attend=attend, name=f'dec_{res}_block{i}', **blocks)(
                    x, emb, train
                )
        x = nn.silu(group_norm(x.shape[-1], 'out_norm', self.dtype)(x))
        return conv(out_channels, 3, TINY, 'out_conv', self.dtype)(x).astype(jnp.float32)

    def _embed(self, cond: Array, label: Array | None) -> Array:
        """Noise level and class -> [B, 4 channels], float32."""
        dense = {'kernel_init': xavier_uniform()}
        emb = positional_embedding(cond[:, 0], self.channels)
        if self.num_classes:
            label = jnp.zeros((cond.shape[0], self.num_classes)) if label is None else label
            emb = emb + nn.Dense(self.channels, name='map_label', **dense)(
                label * np.sqrt(self.num_classes)
            )
        emb = nn.silu(nn.Dense(4 * self.channels, name='map_layer0', **dense)(emb))
        return nn.silu(nn.Dense(4 * self.channels, name='map_layer1', **dense)(emb))


def build(
    image_shape: tuple[int, int, int],
    num_classes: int,
    channels: int = 128,
    channel_mult: Sequence[int] = (2, 2, 2),
    num_blocks: int = 4,
    attn_resolutions: Sequence[int] = (16,),
    dropout: float = 0.0,
    dtype: str = 'float32',
) -> Model:
    """DDPM++; the defaults are EDM's CIFAR-10 network.

    Args:
      image_shape: (H, W, C); H and W divisible by 2^(resolutions - 1).
      num_classes: 0 for an unconditional network.
      channels: width of the first convolution, and of a block before its multiplier; divisible by 4.
      channel_mult: one multiplier, at least 1, a resolution, finest first.
      num_blocks: residual blocks a resolution, at least 1.
      attn_resolutions: image heights at which blocks attend (the coarsest always does, once).
      dropout: probability, in [0, 1).
      dtype: of the computation; parameters, embeddings and the output stay float32.

    Raises: UserError on sizes that do not fit.
    """
    if not channel_mult or min(channel_mult) < 1 or num_blocks < 1:
        raise UserError(
            'model.channel_mult needs one number >= 1 for each resolution and model.num_blocks must '
            f'be >= 1, got {tuple(channel_mult)} and {num_blocks}'
        )
    factor = 2 ** (len(channel_mult) - 1)
    if image_shape[0] % factor or image_shape[1] % factor:
        raise UserError(
            f'images of {image_shape[0]}x{image_shape[1]} cannot be halved {len(channel_mult) - 1} '
            f'times, as model.channel_mult {tuple(channel_mult)} asks'
        )
    if channels <= 0 or channels % 4:
        raise UserError(f'model.channels must be a positive multiple of 4, got {channels}')
    if not 0 <= dropout < 1:
        raise UserError(f'model.dropout must be in [0, 1), got {dropout}')
    check_name('model.dtype', dtype, DTYPES)
    module = SongUNet(
        num_classes,
        channels,
        tuple(channel_mult),
        num_blocks,
        tuple(attn_resolutions),
        dropout,
        DTYPES[dtype],
    )

    def init(key: Key) -> Params:
        x, cond = jnp.zeros((1, *image_shape)), jnp.zeros((1, 1))
        return module.init(key, x, cond, None, train=False)['params']

    def net(
        params: Params, x: Array, cond: Array, label: Array | None = None, key: Key | None = None
    ) -> Array:
        one_hot = None
        if num_classes and label is not None:
            one_hot = jax.nn.one_hot(label, num_classes)
        rngs = {} if key is None else {'dropout': key}
        return module.apply({'params': params}, x, cond, one_hot, key is not None, rngs=rngs)

    return Model(init, net)
