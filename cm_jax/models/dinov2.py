"""DINOv2's vision transformer, whose class token is the feature of FD-DINOv2.

    x [B,H,W,C] in [-1,1] -> bytes 127.5 x + 127.5 -> Pillow's bicubic to 224 x 224 -> byte / 255,
      minus the mean of ImageNet, divided by its standard deviation
      -> 16 x 16 patches of 14 x 14, and a class token
      -> 24 blocks: x + gamma_1 attention(norm(x)), x + gamma_2 mlp(norm(x)) -> norm
      -> the class token = features [B,1024]

The network is ViT-L/14 without registers, by Oquab et al. 2023 (arXiv 2304.07193). Stein et al. 2023
(arXiv 2306.04675) measure Fréchet distances with it. The resize is that of their dgm-eval, which
rounds to bytes after each of its two passes. Products are float32 on every device (no TF32).
"""

from typing import NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cm_jax.errors import UserError
from cm_jax.models.layers import apply
from cm_jax.types import Array, Params

EPS = 1e-6  # added to the variance in layer normalisation
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, for values in [0, 1]


class Sizes(NamedTuple):
    """The sizes of a vision transformer."""

    dim: int  # width of a token
    depth: int  # number of blocks
    heads: int  # of attention
    patch: int = 14  # height and width of a patch, in pixels
    side: int = 224  # height and width of the input, in pixels
    grid: int = 37  # height and width, in patches, of the position embedding in the weights file
    mlp: int = 4  # width of the MLP's hidden layer, as a multiple of dim

    @property
    def tokens(self) -> int:
        """The number of tokens: the class token and one for each patch."""
        return 1 + (self.side // self.patch) ** 2


VIT_L14 = Sizes(dim=1024, depth=24, heads=16)
RESIZE = 'bicubic of Pillow to 224x224 in bytes, mean and deviation of ImageNet'


def dense(features: int, name: str) -> nn.Dense:
    """Returns a dense layer with float32 products."""
    return nn.Dense(features, precision='highest', name=name)


def norm(name: str) -> nn.LayerNorm:
    """Returns a layer normalisation with DINOv2's epsilon."""
    return nn.LayerNorm(epsilon=EPS, use_fast_variance=False, name=name)


class Block(nn.Module):
    """A block, [B,N,dim] -> [B,N,dim]: attention and an MLP, each with a learned scale per channel."""

    sizes: Sizes

    @nn.compact
    def __call__(self, x: Array) -> Array:
        dim = self.sizes.dim
        scales = [self.param(f'scale{i}', nn.initializers.ones, (dim,)) for i in (1, 2)]
        x = x + scales[0][None, None] * self.attention(norm('norm1')(x))
        hidden = nn.gelu(dense(self.sizes.mlp * dim, 'fc1')(norm('norm2')(x)), approximate=False)
        return x + scales[1][None, None] * dense(dim, 'fc2')(hidden)

    def attention(self, x: Array) -> Array:
        """Applies softmax(q k^T / sqrt(d)) v in each head, d = dim / heads, and a projection.

        One dense layer computes q, k and v together.
        """
        batch, tokens, dim = x.shape
        heads = self.sizes.heads
        qkv = dense(3 * dim, 'qkv')(x).reshape(batch, tokens, 3, heads, dim // heads)
        q, k, v = jnp.moveaxis(qkv, 2, 0)
        scores = jnp.einsum('bnhd,bmhd->bhnm', q, k, precision='highest') / (dim // heads) ** 0.5
        attended = jnp.einsum('bhnm,bmhd->bnhd', nn.softmax(scores), v, precision='highest')
        return dense(dim, 'proj')(attended.reshape(batch, tokens, dim))


class Transformer(nn.Module):
    """The network: [B,side,side,3] from `to_input` -> the normalised class token [B,dim]."""

    sizes: Sizes

    @nn.compact
    def __call__(self, x: Array) -> Array:
        s = self.sizes
        patch = (s.patch, s.patch)
        x = nn.Conv(s.dim, patch, patch, 'VALID', precision='highest', name='patch')(x)
        x = x.reshape(x.shape[0], -1, s.dim)
        token = self.param('token', nn.initializers.zeros, (1, 1, s.dim))
        x = jnp.concatenate([jnp.broadcast_to(token, (x.shape[0], 1, s.dim)), x], axis=1)
        x = x + self.param('positions', nn.initializers.zeros, (1, s.tokens, s.dim))
        for i in range(s.depth):
            x = Block(s, name=f'block{i}')(x)
        return norm('norm')(x)[:, 0]


def shapes(sizes: Sizes = VIT_L14) -> Params:
    """Returns the tree of parameters with a jax.ShapeDtypeStruct in place of each array."""
    x = jax.ShapeDtypeStruct((1, sizes.side, sizes.side, 3), jnp.float32)
    return jax.eval_shape(Transformer(sizes).init, jax.random.key(0), x)['params']


def cubic(x: np.ndarray, a: float) -> np.ndarray:
    """Returns the cubic kernel of Keys 1981, equation 4, at x, with the free parameter a.

    It is 1 at x = 0 and 0 for |x| >= 2.
    """
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x**2 + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def resize_matrix(size: int, side: int) -> np.ndarray:
    """Returns the weights [side, size], float32, of Pillow's bicubic resize along one axis.

    They are Keys' cubic with a = -0.5 around half-pixel centres. Where the image shrinks, the cubic is
    stretched by size / side. Weights of pixels beyond the edge are left out, and the others are
    divided by their sum.
    """
    scale = size / side
    wide = max(scale, 1.0)
    centres = (np.arange(side) + 0.5) * scale
    at = np.arange(size) + 0.5
    weights = cubic((at[None] - centres[:, None]) / wide, -0.5)
    first = np.maximum((centres - 2 * wide + 0.5).astype(int), 0)
    last = np.minimum((centres + 2 * wide + 0.5).astype(int), size)
    taps = np.arange(size)[None]
    weights = np.where((taps >= first[:, None]) & (taps < last[:, None]), weights, 0.0)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def resize(x: Array, side: int) -> Array:
    """Resizes images [B,H,W,C] with values in [0, 255] to [B,side,side,C] float32, as Pillow does.

    Each row is resized first, then each column; after each pass the values are rounded to bytes. This
    is Pillow's order for square images; Pillow 13 resizes the columns of some others first.
    """
    rows, columns = (resize_matrix(size, side) for size in x.shape[1:3])

    def to_bytes(x: Array) -> Array:
        return jnp.clip(jnp.floor(x + 0.5), 0, 255)

    x = to_bytes(jnp.einsum('xw,bhwc->bhxc', columns, x.astype(jnp.float32), precision='highest'))
    return to_bytes(jnp.einsum('yh,bhxc->byxc', rows, x, precision='highest'))


def to_input(x: Array, sizes: Sizes = VIT_L14) -> Array:
    """Returns the network's input [B,side,side,3] for images [B,H,W,C] in [-1,1].

    The images are rounded to bytes, resized, and normalised by ImageNet's mean and standard
    deviation. A single channel is repeated three times. Raises UserError unless C is 1 or 3.
    """
    channels = x.shape[-1]
    if channels not in (1, 3):
        raise UserError(f'DINOv2 cannot take images with {channels} channels; legal: 1, 3')
    x = resize(jnp.round(127.5 * x.astype(jnp.float32) + 127.5), sizes.side) / 255
    mean, std = (jnp.asarray(value, jnp.float32)[None, None, None] for value in (MEAN, STD))
    return (jnp.broadcast_to(x, (*x.shape[:3], 3)) - mean) / std


def features(params: Params, x: Array, sizes: Sizes = VIT_L14) -> Array:
    """Returns the features [B,dim], the class token, of images [B,H,W,C] in [-1,1]."""
    chex.assert_rank(x, 4)
    return apply(Transformer(sizes), params, to_input(x, sizes))
