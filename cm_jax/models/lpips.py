"""LPIPS, a learned distance between images (Zhang et al., arXiv 1801.03924, equation 1).

    d(a, b) = sum_l  mean_{h,w}  sum_c  w_lc (f_l(a) / (|f_l(a)| + 1e-10) - f_l(b) / (...))^2_{hwc}

The sum is over five feature maps f_l of VGG-16 (relu1_2, 2_2, 3_3, 4_3, 5_3) or AlexNet (relu1 ...
relu5). The heads w are >= 0, the squares of the equation's w, and |.| is over the channels. This is
version 0.1 of the public `lpips` package, whose weights weights/lpips.py reads. All is float32.

Images with a side below 256 are resized to 224 x 224 first, as OpenAI's code for consistency models
does (arXiv 2303.01469). Its losses on ImageNet-64 and LSUN also replace VGG-16's max pooling by
average pooling: `pooling='average'`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from cm_jax.core.precision import PRECISIONS
from cm_jax.errors import UserError, check_name
from cm_jax.models.layers import apply
from cm_jax.types import Array, Params

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # per channel, of values in [-1, 1]
SIDE, LEAST = 224, 256  # images with a side below LEAST are resized to SIDE x SIDE
EPS = 1e-10  # added to |f| before dividing by it
POOLINGS = {'max': nn.max_pool, 'average': nn.avg_pool}


class Conv(NamedTuple):
    """A convolution, followed by a relu; `number` is its position in torchvision's `features`."""

    number: int
    channels: int
    size: int = 3
    stride: int = 1
    padding: int = 1


class Stage(NamedTuple):
    """A pooling and the convolutions after it, which end in one feature map.

    `pool` is the size of the pooling's window, of stride 2; 0 means that there is no pooling.
    """

    pool: int
    convs: tuple[Conv, ...]


NETWORKS = {
    'vgg': (
        Stage(0, (Conv(0, 64), Conv(2, 64))),
        Stage(2, (Conv(5, 128), Conv(7, 128))),
        Stage(2, (Conv(10, 256), Conv(12, 256), Conv(14, 256))),
        Stage(2, (Conv(17, 512), Conv(19, 512), Conv(21, 512))),
        Stage(2, (Conv(24, 512), Conv(26, 512), Conv(28, 512))),
    ),
    'alex': (
        Stage(0, (Conv(0, 64, size=11, stride=4, padding=2),)),
        Stage(3, (Conv(3, 192, size=5, padding=2),)),
        Stage(3, (Conv(6, 384),)),
        Stage(0, (Conv(8, 256),)),
        Stage(0, (Conv(10, 256),)),
    ),
}


def conv_of_patches(
    x: Array, kernel: Array, strides: Any, padding: Sequence[tuple[int, int]], **settings: Any
) -> Array:
    """A convolution [B,H,W,I] -> [B,H',W',O] of stride 1, computed as one matrix product.

    Each row of its left factor is the patch under the kernel [h,w,I,O] at one place. The reason: XLA's
    convolution of maps smaller than the kernel is slow on CPUs, where it makes the whole VGG-16 on
    32x32 images several times slower. The arguments are those of jax.lax.conv_general_dilated; of
    `settings`, precision alone is used.
    """
    del strides
    size_h, size_w, _, channels = kernel.shape
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    height, width = x.shape[1] - size_h + 1, x.shape[2] - size_w + 1
    patches = jnp.concatenate(
        [x[:, i : i + height, j : j + width] for i in range(size_h) for j in range(size_w)], axis=-1
    )
    return jnp.matmul(patches, kernel.reshape(-1, channels), precision=settings['precision'])


class Features(nn.Module):
    """The network: images [B,H,W,3], shifted and scaled -> five feature maps, each >= 0."""

    network: str
    pooling: str
    precision: str

    @nn.compact
    def __call__(self, x: Array) -> list[Array]:
        maps = []
        for pool, convs in NETWORKS[self.network]:
            if pool:
                x = POOLINGS[self.pooling](x, (pool, pool), (2, 2))
            for conv in convs:
                small = conv.stride == 1 and min(x.shape[1:3]) < conv.size
                layer = nn.Conv(
                    conv.channels,
                    (conv.size, conv.size),
                    conv.stride,
                    padding=conv.padding,
                    precision=self.precision,
                    conv_general_dilated=conv_of_patches if small else None,
                    name=f'conv{conv.number}',
                )
                x = nn.relu(layer(x))
            maps.append(x)
        return maps


def scaled(x: Array) -> Array:
    """Returns (x - SHIFT) / SCALE for images [B,H,W,3] in [-1,1], as `Features` takes them."""
    shift, scale = (jnp.float32(v).reshape(1, 1, 1, 3) for v in (SHIFT, SCALE))
    return (x - shift) / scale


def unit(f: Array) -> Array:
    """Returns f / (|f| + EPS), with |.| over the last axis.

    Where f is 0, the result is 0 and its gradient is finite. NaN stays NaN.
    """
    square = jnp.sum(f**2, axis=-1, keepdims=True)
    square = jnp.where(square < jnp.finfo(jnp.float32).tiny, 1, square)
    return f / (jnp.sqrt(square) + EPS)


class Lpips(nn.Module):
    """The distance [B] of two batches of images [B,H,W,3] in [-1,1], at the size that they have.

    The two batches pass through the features separately, so that no gradient is computed for one
    that is behind a stop_gradient.
    """

    network: str
    pooling: str = 'max'
    precision: str = 'highest'

    @nn.compact
    def __call__(self, a: Array, b: Array) -> Array:
        features = Features(self.network, self.pooling, self.precision, name='features')
        total = jnp.zeros(a.shape[0])
        for i, (f, g) in enumerate(zip(*(features(scaled(x)) for x in (a, b)))):
            head = self.param(f'head{i}', nn.initializers.ones, (f.shape[-1],))
            square = (unit(f) - unit(g)) ** 2
            total += jnp.mean(jnp.sum(square * head[None, None, None], axis=-1), axis=(1, 2))
        return total


def to_input(
    x: Array,
    network: str = 'LPIPS',
    least: int = LEAST,
    side: int = SIDE,
    antialias: bool = False,
) -> Array:
    """Returns images [B,H,W,C] in the form that a network takes: [B,H',W',3], float32.

    A single channel is repeated three times. Images with a side below `least` are resized to
    side x side, bilinearly with half-pixel centres. LPIPS does it as PyTorch's `interpolate` without
    antialias: two pixels along each axis are mixed even where the image shrinks. Raises UserError,
    which names the network, unless C is 1 or 3.
    """
    batch, height, width, channels = x.shape
    if channels not in (1, 3):
        raise UserError(f'{network} cannot take images with {channels} channels; legal: 1, 3')
    x = x.astype(jnp.float32)
    if min(height, width) < least:
        x = jax.image.resize(x, (batch, side, side, channels), 'linear', antialias=antialias)
    return jnp.broadcast_to(x, (*x.shape[:3], 3))


def build(
    network: str, pooling: str = 'max', precision: str = 'highest'
) -> Callable[[Params, Array, Array], Array]:
    """Returns the function `distance(params, a, b)` -> [B], float32, >= 0.

    a and b are images [B,H,W,C] in [-1,1] with C 1 or 3; the distance is differentiable in both.
    `network` is 'vgg' or 'alex', `pooling` 'max' or 'average'. `precision` is that of the
    convolutions: 'highest' is float32; 'default' is the device's choice (TF32 on GPUs, bfloat16 on
    TPUs). Raises UserError if one of the three names is unknown.
    """
    check_name('LPIPS network', network, NETWORKS)
    check_name('LPIPS pooling', pooling, POOLINGS)
    check_name('LPIPS precision', precision, PRECISIONS)
    module = Lpips(network, pooling, precision)

    def distance(params: Params, a: Array, b: Array) -> Array:
        chex.assert_rank([a, b], 4)
        chex.assert_equal_shape([a, b])
        return apply(module, params, to_input(a), to_input(b))

    return distance


def shapes(network: str) -> Params:
    """Returns the tree of parameters with a jax.ShapeDtypeStruct in place of each array.

    Its names are features/conv<i>/{kernel,bias} and head<l>, [C].
    """
    x = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.float32)
    return jax.eval_shape(Lpips(network).init, jax.random.key(0), x, x)['params']
