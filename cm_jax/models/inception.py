"""The Inception of the Fréchet Inception distance: the TensorFlow graph of 2015-12-05.

    x [B,H,W,C] in [-1,1] -> bytes 127.5 x + 127.5 -> bilinear to 299 x 299 -> (. - 128) / 128
      -> convolutions -> mean over pixels = features [B,2048] -> dense 1008 = logits

Heusel et al. 2017 (arXiv 1706.08500) measure with this network. So do its public ports pytorch-fid
and torch-fidelity, whose names of the layers are used here. Its pools differ from those of Szegedy et
al. 2015 (arXiv 1512.00567) and of torchvision: averages leave out the padding (Mixed_5b to 6e, and
7b), and the pool of Mixed_7c takes maxima. The resize is TensorFlow 1's, without half-pixel centres.

A relu follows each convolution. weights/inception.py reads the public files and folds the batch
normalisation into kernels and biases. Products are float32 on every device (no TF32).
"""

from collections.abc import Sequence
from typing import NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cm_jax.errors import UserError
from cm_jax.models.layers import apply
from cm_jax.types import Array, Params

SIDE = 299
RESIZE = 'bilinear of TensorFlow 1 to 299x299, (byte - 128) / 128'  # the text that protocols store
DIM, CLASSES = 2048, 1008
TAPS = ('64', '192', '768', '2048')  # the feature maps that are averaged, named by their channels


class Conv(NamedTuple):
    """A convolution, followed by a relu."""

    name: str
    channels: int
    size: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: str = 'SAME'


class Pool(NamedTuple):
    """A 3x3 pool of `kind` 'max' or 'average': padded if the stride is 1, not padded if it is 2."""

    kind: str
    stride: int = 1


class Fork(NamedTuple):
    """Two convolutions of the same input, whose outputs are concatenated along the channels."""

    a: Conv
    b: Conv


Branch = Sequence[Conv | Pool | Fork]
HALVE = Pool('max', stride=2)


def block_a(pool: int) -> tuple[Branch, ...]:
    """Returns the branches of a block at 35 x 35 pixels: 1x1, 5x5, two 3x3, and an average pool.

    `pool` is the number of channels after the pool.
    """
    return (
        (Conv('branch1x1', 64),),
        (Conv('branch5x5_1', 48), Conv('branch5x5_2', 64, size=(5, 5))),
        (
            Conv('branch3x3dbl_1', 64),
            Conv('branch3x3dbl_2', 96, size=(3, 3)),
            Conv('branch3x3dbl_3', 96, size=(3, 3)),
        ),
        (Pool('average'), Conv('branch_pool', pool)),
    )


def block_c(width: int) -> tuple[Branch, ...]:
    """Returns the branches of a block at 17 x 17 pixels: 1x1, 7x7, two 7x7, and an average pool.

    Each 7x7 is split into a row (1x7) and a column (7x1); `width` is the channels between them.
    """
    row, column = (1, 7), (7, 1)
    return (
        (Conv('branch1x1', 192),),
        (
            Conv('branch7x7_1', width),
            Conv('branch7x7_2', width, size=row),
            Conv('branch7x7_3', 192, size=column),
        ),
        (
            Conv('branch7x7dbl_1', width),
            Conv('branch7x7dbl_2', width, size=column),
            Conv('branch7x7dbl_3', width, size=row),
            Conv('branch7x7dbl_4', width, size=column),
            Conv('branch7x7dbl_5', 192, size=row),
        ),
        (Pool('average'), Conv('branch_pool', 192)),
    )


def block_e(pool: str) -> tuple[Branch, ...]:
    """Returns the branches of a block at 8 x 8 pixels: 1x1, 3x3, two 3x3, and a pool of kind `pool`.

    The last 3x3 of a branch is split into a row (1x3) beside a column (3x1).
    """

    def row_beside_column(name: str) -> Fork:
        return Fork(Conv(f'{name}a', 384, size=(1, 3)), Conv(f'{name}b', 384, size=(3, 1)))

    return (
        (Conv('branch1x1', 320),),
        (Conv('branch3x3_1', 384), row_beside_column('branch3x3_2')),
        (
            Conv('branch3x3dbl_1', 448),
            Conv('branch3x3dbl_2', 384, size=(3, 3)),
            row_beside_column('branch3x3dbl_3'),
        ),
        (Pool(pool), Conv('branch_pool', 192)),
    )


STEM = (
    Conv('Conv2d_1a_3x3', 32, size=(3, 3), stride=2, padding='VALID'),
    Conv('Conv2d_2a_3x3', 32, size=(3, 3), padding='VALID'),
    Conv('Conv2d_2b_3x3', 64, size=(3, 3)),
    HALVE,  # -> '64'
    Conv('Conv2d_3b_1x1', 80),
    Conv('Conv2d_4a_3x3', 192, size=(3, 3), padding='VALID'),
    HALVE,  # -> '192'
)
BLOCKS = {
    'Mixed_5b': block_a(32),
    'Mixed_5c': block_a(64),
    'Mixed_5d': block_a(64),
    'Mixed_6a': (
        (Conv('branch3x3', 384, size=(3, 3), stride=2, padding='VALID'),),
        (
            Conv('branch3x3dbl_1', 64),
            Conv('branch3x3dbl_2', 96, size=(3, 3)),
            Conv('branch3x3dbl_3', 96, size=(3, 3), stride=2, padding='VALID'),
        ),
        (HALVE,),
    ),
    'Mixed_6b': block_c(128),
    'Mixed_6c': block_c(160),
    'Mixed_6d': block_c(160),
    'Mixed_6e': block_c(192),  # -> '768'
    'Mixed_7a': (
        (
            Conv('branch3x3_1', 192),
            Conv('branch3x3_2', 320, size=(3, 3), stride=2, padding='VALID'),
        ),
        (
            Conv('branch7x7x3_1', 192),
            Conv('branch7x7x3_2', 192, size=(1, 7)),
            Conv('branch7x7x3_3', 192, size=(7, 1)),
            Conv('branch7x7x3_4', 192, size=(3, 3), stride=2, padding='VALID'),
        ),
        (HALVE,),
    ),
    'Mixed_7b': block_e('average'),
    'Mixed_7c': block_e('max'),  # -> '2048'
}


def pooled(pool: Pool, x: Array) -> Array:
    """Applies a pool to x [B,H,W,C]; an average at the edge leaves out the padding."""
    if pool.kind == 'average':
        return nn.avg_pool(x, (3, 3), padding='SAME', count_include_pad=False)
    padding = 'VALID' if pool.stride > 1 else 'SAME'
    return nn.max_pool(x, (3, 3), (pool.stride, pool.stride), padding)


def run(steps: Branch, x: Array) -> Array:
    """Applies the steps one after the other. To be called inside a compact module only."""
    for step in steps:
        if isinstance(step, Pool):
            x = pooled(step, x)
        elif isinstance(step, Fork):
            x = jnp.concatenate([run((conv,), x) for conv in step], axis=-1)
        else:
            conv = nn.Conv(
                step.channels,
                step.size,
                step.stride,
                step.padding,
                precision='highest',
                name=step.name,
            )
            x = nn.relu(conv(x))
    return x


class Block(nn.Module):
    """Applies branches to the same input and concatenates their outputs along the channels."""

    branches: Sequence[Branch]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return jnp.concatenate([run(branch, x) for branch in self.branches], axis=-1)


class Inception(nn.Module):
    """The network: [B,299,299,3] from `to_input` -> everything that is measured of it, by name.

    '64', '192', '768' and '2048' are features: means over the pixels of a feature map, [B, channels]
    >= 0. 'logits' [B,1008] are the class logits, and 'logits_unbiased' are those without the bias.
    """

    @nn.compact
    def __call__(self, x: Array) -> dict[str, Array]:
        measured = {}
        x = run(STEM[:4], x)
        measured['64'] = jnp.mean(x, axis=(1, 2))
        x = run(STEM[4:], x)
        measured['192'] = jnp.mean(x, axis=(1, 2))
        for name, branches in BLOCKS.items():
            x = Block(branches, name=name)(x)
            if name in ('Mixed_6e', 'Mixed_7c'):
                measured[str(x.shape[-1])] = jnp.mean(x, axis=(1, 2))
        kernel = self.param('fc_kernel', nn.initializers.lecun_normal(), (DIM, CLASSES))
        bias = self.param('fc_bias', nn.initializers.zeros, (CLASSES,))
        measured['logits_unbiased'] = jnp.matmul(measured['2048'], kernel, precision='highest')
        measured['logits'] = measured['logits_unbiased'] + bias[None]
        return measured


def shapes() -> Params:
    """Returns the tree of parameters with a jax.ShapeDtypeStruct in place of each array.

    Its names are <layer>/{kernel,bias}, <block>/<layer>/{kernel,bias}, fc_kernel and fc_bias.
    """
    x = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.float32)
    return jax.eval_shape(Inception().init, jax.random.key(0), x)['params']


def resize_matrix(size: int) -> np.ndarray:
    """Returns the weights [299, size] of the bilinear resize along one axis.

    Output i lies at i size / 299, in float32 (TensorFlow 1, align_corners=False). There are no
    half-pixel centres, each output mixes two pixels even where the image shrinks, and beyond the edge
    the last pixel is repeated.
    """
    at = np.arange(SIDE, dtype=np.float32) * np.float32(size / SIDE)
    low = np.minimum(np.floor(at).astype(int), size - 1)
    high = np.minimum(low + 1, size - 1)
    matrix = np.zeros((SIDE, size), np.float32)
    np.add.at(matrix, (np.arange(SIDE), low), 1 - (at - low))
    np.add.at(matrix, (np.arange(SIDE), high), at - low)
    return matrix


def resize(x: Array) -> Array:
    """Resizes images [B,H,W,C] to [B,299,299,C] float32, bilinearly."""
    rows, columns = (resize_matrix(size) for size in x.shape[1:3])
    x = jnp.einsum('yh,bhwc->bywc', rows, x.astype(jnp.float32), precision='highest')
    return jnp.einsum('xw,bywc->byxc', columns, x, precision='highest')


def to_input(x: Array) -> Array:
    """Returns the network's input [B,299,299,3] for images [B,H,W,C] in [-1,1].

    The values are scaled to [0, 255], resized, and mapped by (value - 128) / 128. A single channel is
    repeated three times. Raises UserError unless C is 1 or 3.
    """
    channels = x.shape[-1]
    if channels not in (1, 3):
        raise UserError(
            f'the FID Inception cannot take images with {channels} channels; legal: 1, 3'
        )
    x = (resize(127.5 * x.astype(jnp.float32) + 127.5) - 128) / 128
    return jnp.broadcast_to(x, (*x.shape[:3], 3))


def outputs(params: Params, x: Array) -> dict[str, Array]:
    """Returns everything that `Inception` measures of images [B,H,W,C] in [-1,1], by name."""
    chex.assert_rank(x, 4)
    return apply(Inception(), params, to_input(x))


def features(params: Params, x: Array) -> Array:
    """Returns the features [B,2048] >= 0 of images [B,H,W,C] in [-1,1]."""
    return outputs(params, x)['2048']


def logits(params: Params, features: Array) -> Array:
    """Returns the class logits without the bias, [B,1008], of features [B,2048].

    The inception score takes their softmax, as Salimans et al. 2016 (arXiv 1606.03498) computed it.
    """
    return jnp.matmul(features, params['fc_kernel'], precision='highest')
