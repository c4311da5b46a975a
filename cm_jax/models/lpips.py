"""LPIPS, a learned distance between images (Zhang et al., arXiv 1801.03924, equation 1).

    d(a, b) = sum_l  mean_{h,w}  sum_c  w_lc (f_l(a) / (|f_l(a)| + 1e-10) - f_l(b) / (...))^2_{hwc}

over five feature maps f_l of VGG-16 (relu1_2, 2_2, 3_3, 4_3, 5_3) or AlexNet (relu1 ... relu5), with
heads w >= 0 (the squares of the equation's) and |.| over the channels: version 0.1 of the public
`lpips` package, whose weights weights/lpips.py reads. All is float32.

Images with a side below 256 are resized to 224 x 224 first, as OpenAI's code does for consistency
models (arXiv 2303.01469); its losses on ImageNet-64 and LSUN also have average pooling where VGG-16
has max pooling: `pooling='average'`.
"""

from collections.abc import Callable
from typing import NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from cm_jax.errors import UserError, check_name
from cm_jax.types import Array, Params

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # per channel, of values in [-1, 1]
SIDE, LEAST = 224, 256  # resized to, if below
EPS = 1e-10
POOLINGS = {'max': nn.max_pool, 'average': nn.avg_pool}
PRECISIONS = ('default', 'high', 'highest')  # of jax.lax.Precision


class Conv(NamedTuple):
    """A convolution and the relu behind it; `index` is its number in torchvision's `features`."""

    index: int
    channels: int
    size: int = 3
    stride: int = 1
    padding: int = 1


class Stage(NamedTuple):
    """Convolutions up to one feature map. `pool`: window of the pooling before, stride 2; 0: none."""

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


class Features(nn.Module):
    """[B,H,W,3], shifted and scaled -> five feature maps, each >= 0."""

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
                layer = nn.Conv(
                    conv.channels,
                    (conv.size, conv.size),
                    conv.stride,
                    padding=conv.padding,
                    precision=self.precision,
                    name=f'conv{conv.index}',
                )
                x = nn.relu(layer(x))
            maps.append(x)
        return maps


def unit(f: Array) -> Array:
    """f / (|f| + EPS) over the last axis; 0 stays 0, where the gradient is finite; NaN stays NaN."""
    square = jnp.sum(f**2, axis=-1, keepdims=True)
    square = jnp.where(square < jnp.finfo(jnp.float32).tiny, 1, square)
    return f / (jnp.sqrt(square) + EPS)


class Lpips(nn.Module):
    """([B,H,W,3], the same) in [-1,1] -> [B], at the size given.

    The images go through the features one by one: behind a stop_gradient no gradient is computed.
    """

    network: str
    pooling: str = 'max'
    precision: str = 'highest'

    @nn.compact
    def __call__(self, a: Array, b: Array) -> Array:
        features = Features(self.network, self.pooling, self.precision, name='features')
        shift, scale = (jnp.float32(v).reshape(1, 1, 1, 3) for v in (SHIFT, SCALE))
        total = jnp.zeros(a.shape[0])
        for i, (f, g) in enumerate(zip(*(features((x - shift) / scale) for x in (a, b)))):
            head = self.param(f'head{i}', nn.initializers.ones, (f.shape[-1],))
            square = (unit(f) - unit(g)) ** 2
            total += jnp.mean(jnp.sum(square * head[None, None, None], axis=-1), axis=(1, 2))
        return total


def to_input(x: Array) -> Array:
    """[B,H,W,C] -> [B,.,.,3] float32: one channel three times, and 224 x 224 if a side is below 256.

    Bilinear, half-pixel centres, two taps a side even where it shrinks (PyTorch's `interpolate`
    without antialias). Raises UserError unless C is 1 or 3.
    """
    batch, height, width, channels = x.shape
    if channels not in (1, 3):
        raise UserError(f'LPIPS of images with {channels} channels; legal: 1, 3')
    x = x.astype(jnp.float32)
    if min(height, width) < LEAST:
        x = jax.image.resize(x, (batch, SIDE, SIDE, channels), 'linear', antialias=False)
    return jnp.broadcast_to(x, (*x.shape[:3], 3))


def build(
    network: str, pooling: str = 'max', precision: str = 'highest'
) -> Callable[[Params, Array, Array], Array]:
    """`distance(params, a, b)`: images [B,H,W,C] in [-1,1], C 1 or 3 -> [B] float32 >= 0.

    Differentiable in a and b. `network` 'vgg' or 'alex'. `precision` of the convolutions: 'highest'
    is float32; 'default' is what the device likes (TF32 on GPUs, bfloat16 on TPUs).
    """
    check_name('LPIPS network', network, NETWORKS)
    check_name('LPIPS pooling', pooling, POOLINGS)
    check_name('LPIPS precision', precision, PRECISIONS)
    module = Lpips(network, pooling, precision)

    def distance(params: Params, a: Array, b: Array) -> Array:
        chex.assert_rank([a, b], 4)
        chex.assert_equal_shape([a, b])
        return module.apply({'params': params}, to_input(a), to_input(b))

    return distance


def shapes(network: str) -> Params:
    """The parameters as jax.ShapeDtypeStruct: features/conv<i>/{kernel,bias} and head<l> [C]."""
    x = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.float32)
    return jax.eval_shape(Lpips(network).init, jax.random.key(0), x, x)['params']
