"""The Inception of the Fréchet Inception distance: the TensorFlow graph of 2015-12-05.

    x [B,H,W,C] in [-1,1] -> bytes 127.5 x + 127.5 -> bilinear to 299 x 299 -> (. - 128) / 128
      -> convolutions -> mean over pixels = features [B,2048] -> dense 1008 = logits

Heusel et al. 2017 (arXiv 1706.08500) measure with it, and its public ports pytorch-fid and
torch-fidelity, which named the layers as here. Three pools are not those of Szegedy et al. 2015
(arXiv 1512.00567), and not torchvision's: averages leave out the padding (Mixed_5b to 6e, and 7b),
and the pool of Mixed_7c takes maxima. The resize is TensorFlow 1's, without half-pixel centres.

Each convolution has a relu behind it. Batch normalisation is folded into its kernel and bias by
weights/inception.py, which reads the public files. Products are float32 on every device (no TF32).
"""

from collections.abc import Sequence
from typing import NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cm_jax.errors import UserError
from cm_jax.types import Array, Params

SIDE = 299
RESIZE = 'bilinear of TensorFlow 1 to 299x299, (byte - 128) / 128'  # as protocols store it
DIM, CLASSES = 2048, 1008
TAPS = ('64', '192', '768', '2048')  # the feature maps whose means are features, by their channels


class Conv(NamedTuple):
    """A convolution and the relu behind it; `padding` 'SAME' where the stride is 1."""

    name: str
    channels: int
    size: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: str = 'SAME'


class Pool(NamedTuple):
    """A 3x3 pool: 'max' of stride 2 without padding, or 'max' or 'average' of stride 1 with it."""

    kind: str
    stride: int = 1


class Fork(NamedTuple):
    """Two convolutions of one input, side by side."""

    a: Conv
    b: Conv


Branch = Sequence[Conv | Pool | Fork]
HALVE = Pool('max', stride=2)


def block_a(pool: int) -> tuple[Branch, ...]:
    """35 x 35: 1x1, 5x5, two 3x3, average."""
    return (
        (Conv('branch1x1', 64),),
        (Conv('branch5x5_1', 48), Conv('branch5x5_2', 64, (5, 5))),
        (
            Conv('branch3x3dbl_1', 64),
            Conv('branch3x3dbl_2', 96, (3, 3)),
            Conv('branch3x3dbl_3', 96, (3, 3)),
        ),
        (Pool('average'), Conv('branch_pool', pool)),
    )


def block_c(width: int) -> tuple[Branch, ...]:
    """17 x 17: 1x1, 7x7 and two 7x7 in rows and columns, average."""
    row, column = (1, 7), (7, 1)
    return (
        (Conv('branch1x1', 192),),
        (
            Conv('branch7x7_1', width),
            Conv('branch7x7_2', width, row),
            Conv('branch7x7_3', 192, column),
        ),
        (
            Conv('branch7x7dbl_1', width),
            Conv('branch7x7dbl_2', width, column),
            Conv('branch7x7dbl_3', width, row),
            Conv('branch7x7dbl_4', width, column),
            Conv('branch7x7dbl_5', 192, row),
        ),
        (Pool('average'), Conv('branch_pool', 192)),
    )


def block_e(pool: str) -> tuple[Branch, ...]:
    """8 x 8: 1x1, 3x3 and two 3x3 that end in rows beside columns, and a pool."""

    def ends(name: str) -> Fork:
        return Fork(Conv(f'{name}a', 384, (1, 3)), Conv(f'{name}b', 384, (3, 1)))

    return (
        (Conv('branch1x1', 320),),
        (Conv('branch3x3_1', 384), ends('branch3x3_2')),
        (
            Conv('branch3x3dbl_1', 448),
            Conv('branch3x3dbl_2', 384, (3, 3)),
            ends('branch3x3dbl_3'),
        ),
        (Pool(pool), Conv('branch_pool', 192)),
    )


STEM = (
    Conv('Conv2d_1a_3x3', 32, (3, 3), 2, 'VALID'),
    Conv('Conv2d_2a_3x3', 32, (3, 3), 1, 'VALID'),
    Conv('Conv2d_2b_3x3', 64, (3, 3)),
    HALVE,  # -> '64'
    Conv('Conv2d_3b_1x1', 80),
    Conv('Conv2d_4a_3x3', 192, (3, 3), 1, 'VALID'),
    HALVE,  # -> '192'
)
BLOCKS = {
    'Mixed_5b': block_a(32),
    'Mixed_5c': block_a(64),
    'Mixed_5d': block_a(64),
    'Mixed_6a': (
        (Conv('branch3x3', 384, (3, 3), 2, 'VALID'),),
        (
            Conv('branch3x3dbl_1', 64),
            Conv('branch3x3dbl_2', 96, (3, 3)),
            Conv('branch3x3dbl_3', 96, (3, 3), 2, 'VALID'),
        ),
        (HALVE,),
    ),
    'Mixed_6b': block_c(128),
    'Mixed_6c': block_c(160),
    'Mixed_6d': block_c(160),
    'Mixed_6e': block_c(192),  # -> '768'
    'Mixed_7a': (
        (Conv('branch3x3_1', 192), Conv('branch3x3_2', 320, (3, 3), 2, 'VALID')),
        (
            Conv('branch7x7x3_1', 192),
            Conv('branch7x7x3_2', 192, (1, 7)),
            Conv('branch7x7x3_3', 192, (7, 1)),
            Conv('branch7x7x3_4', 192, (3, 3), 2, 'VALID'),
        ),
        (HALVE,),
    ),
    'Mixed_7b': block_e('average'),
    'Mixed_7c': block_e('max'),  # -> '2048'
}


def pooled(pool: Pool, x: Array) -> Array:
    """[B,H,W,C] pooled; an average near the edge is over the pixels that exist."""
    if pool.kind == 'average':
        return nn.avg_pool(x, (3, 3), padding='SAME', count_include_pad=False)
    padding = 'VALID' if pool.stride > 1 else 'SAME'
    return nn.max_pool(x, (3, 3), (pool.stride, pool.stride), padding)


def run(steps: Branch, x: Array) -> Array:
    """The steps in turn. Inside a compact module."""
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
    """Branches of one input, their outputs one after another in the channels."""

    branches: Sequence[Branch]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return jnp.concatenate([run(branch, x) for branch in self.branches], axis=-1)


class Inception(nn.Module):
    """[B,299,299,3], about [-1,1] -> {'64', '192', '768', '2048', 'logits_unbiased', 'logits'}.

    Of the inputs as `to_input` makes them. Features are means over pixels, [B, channels] >= 0.
    """

    @nn.compact
    def __call__(self, x: Array) -> dict[str, Array]:
        found = {}
        x = run(STEM[:4], x)
        found['64'] = jnp.mean(x, axis=(1, 2))
        x = run(STEM[4:], x)
        found['192'] = jnp.mean(x, axis=(1, 2))
        for name, branches in BLOCKS.items():
            x = Block(branches, name=name)(x)
            if name in ('Mixed_6e', 'Mixed_7c'):
                found[str(x.shape[-1])] = jnp.mean(x, axis=(1, 2))
        kernel = self.param('fc_kernel', nn.initializers.lecun_normal(), (DIM, CLASSES))
        bias = self.param('fc_bias', nn.initializers.zeros, (CLASSES,))
        found['logits_unbiased'] = jnp.matmul(found['2048'], kernel, precision='highest')
        found['logits'] = found['logits_unbiased'] + bias[None]
        return found


def shapes() -> Params:
    """The parameters as jax.ShapeDtypeStruct: <layer>/{kernel,bias}, <block>/<layer>/{kernel,bias}
    and fc_kernel, fc_bias."""
    x = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.float32)
    return jax.eval_shape(Inception().init, jax.random.key(0), x)['params']


def resize_matrix(size: int) -> np.ndarray:
    """[299, size]: the bilinear weights of one axis.

    Output i is at i size / 299 in float32 (TensorFlow 1, align_corners=False): no half-pixel centres,
    two taps even where it shrinks, and the last pixel beyond the edge.
    """
    at = np.arange(SIDE, dtype=np.float32) * np.float32(size / SIDE)
    low = np.minimum(np.floor(at).astype(int), size - 1)
    high = np.minimum(low + 1, size - 1)
    matrix = np.zeros((SIDE, size), np.float32)
    np.add.at(matrix, (np.arange(SIDE), low), 1 - (at - low))
    np.add.at(matrix, (np.arange(SIDE), high), at - low)
    return matrix


def resize(x: Array) -> Array:
    """[B,H,W,C] -> [B,299,299,C] float32, linear in x."""
    rows, columns = (resize_matrix(size) for size in x.shape[1:3])
    x = jnp.einsum('yh,bhwc->bywc', rows, x.astype(jnp.float32), precision='highest')
    return jnp.einsum('xw,bywc->byxc', columns, x, precision='highest')


def to_input(x: Array) -> Array:
    """[B,H,W,C] in [-1,1] -> [B,299,299,3]: bytes, resized, less 128, by 128; grey three times.

    Raises UserError unless C is 1 or 3.
    """
    channels = x.shape[-1]
    if channels not in (1, 3):
        raise UserError(f'Inception of images with {channels} channels; legal: 1, 3')
    x = (resize(127.5 * x.astype(jnp.float32) + 127.5) - 128) / 128
    return jnp.broadcast_to(x, (*x.shape[:3], 3))


def outputs(params: Params, x: Array) -> dict[str, Array]:
    """[B,H,W,C] in [-1,1] -> everything that `Inception` gives."""
    chex.assert_rank(x, 4)
    return Inception().apply({'params': params}, to_input(x))


def features(params: Params, x: Array) -> Array:
    """[B,H,W,C] in [-1,1] -> [B,2048] >= 0."""
    return outputs(params, x)['2048']


def logits(params: Params, found: Array) -> Array:
    """features [B,2048] -> logits without the bias [B,1008], whose softmax the inception score takes.

    As Salimans et al. 2016 (arXiv 1606.03498) computed it.
    """
    return jnp.matmul(found, params['fc_kernel'], precision='highest')
