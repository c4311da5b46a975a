"""Augmentation of training images that does not leak (Karras et al., arXiv 2206.00364, appendix F.2).

An image is flipped, scaled, rotated, stretched and shifted, in this order and each by chance, and the
network is told in nine labels what was done to it. To sample it is told that nothing was (zeros), and
makes images like those that were not augmented. The transforms are those of StyleGAN2-ADA (arXiv
2006.06676, appendix B); at probability p, with w ~ N(0, 1) unless another law is named:

    labels  transform                                 drawn                probability  label
    0       flip left-right                                                1/2 (*)      1
    1       flip upside down                                               p/2          1
    2       scale by 2^{0.2 w}                        w                    p            w
    3, 4    rotate by w, anticlockwise                w ~ U(-pi, pi)       p            cos w - 1, sin w
    5, 6    stretch by 2^{0.2 w} along an axis at     w; r = 0 or, half    p            w cos r, w sin r
            the angle r, by 2^{-0.2 w} across it      the time, U(-pi, pi)
    7, 8    shift by (W w_x / 8, H w_y / 8) pixels    w_x, w_y             p            w_x, w_y

Angles are anticlockwise as the image is seen, shifts to the right and down, all about the image's
centre. (*) whatever p is, unless it is 0.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from cm_jax.types import Array, Key

LABELS = 9
SCALE_STD = 0.2  # of log2 of the scale and of the stretch
SHIFT_STD = 0.125  # of the shift, in widths and heights of the image

# Daubechies' symlet of 12 taps: orthonormal to its shifts by even numbers, six vanishing moments.
SYM6 = np.array(
    [
        *(0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633),
        *(0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252),
        *(-0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148),
    ]
)
CENTRE = 5  # the tap at the filter's centre of mass, which is at 5.1
OVERLAP = len(SYM6) - 2  # how many values the filters of one line reach beyond twice its length


class Transform(NamedTuple):
    """What is done to one image: scalars, in the module's table `w` and `r`; 0 is nothing."""

    flip_x: Array  # 0 or 1
    flip_y: Array  # 0 or 1
    scale: Array
    angle: Array  # radians
    stretch: Array
    axis: Array  # radians; of no effect where `stretch` is 0
    shift_x: Array
    shift_y: Array


def draw(key: Key, probability: float | Array, dtype: jnp.dtype = float) -> Transform:
    """One random transform; `probability` in [0, 1], p of the module's table."""
    key_chosen, key_coin, key_normal, key_angle = jax.random.split(key, 4)
    chosen = jax.random.uniform(key_chosen, (5,)) < probability
    heads = jax.random.bernoulli(key_coin, 0.5, (3,))
    normal = jax.random.normal(key_normal, (4,), dtype)
    angle, axis = jax.random.uniform(key_angle, (2,), dtype, -np.pi, np.pi)
    return Transform(
        flip_x=(heads[0] & (probability > 0)).astype(dtype),
        flip_y=(heads[1] & chosen[0]).astype(dtype),
        scale=jnp.where(chosen[1], normal[0], 0),
        angle=jnp.where(chosen[2], angle, 0),
        stretch=jnp.where(chosen[3], normal[1], 0),
        axis=jnp.where(chosen[3] & heads[2], axis, 0),
        shift_x=jnp.where(chosen[4], normal[2], 0),
        shift_y=jnp.where(chosen[4], normal[3], 0),
    )


def labels(transform: Transform) -> Array:
    """What the network is told of a transform: [9], in the order of the module's table."""
    t = transform
    turned = (-2 * jnp.sin(t.angle / 2) ** 2, jnp.sin(t.angle))  # cos w - 1, also of small w
    stretched = (t.stretch * jnp.cos(t.axis), t.stretch * jnp.sin(t.axis))
    return jnp.stack([t.flip_x, t.flip_y, t.scale, *turned, *stretched, t.shift_x, t.shift_y])


def apply(transform: Transform, x0: Array) -> Array:
    """The transformed image, [H,W,C] -> [H,W,C].

    Where it is flipped at most, the values are those of `x0` to the bit.
    """
    x0 = jnp.where(transform.flip_x > 0, x0[:, ::-1], x0)
    x0 = jnp.where(transform.flip_y > 0, x0[::-1], x0)
    moved = jnp.any(jnp.stack(transform[2:]) != 0)
    return jnp.where(moved, warp(transform, x0), x0)


def augment(key: Key, x0: Array, probability: float | Array) -> tuple[Array, Array]:
    """Augments each image by a transform of its own: [B,H,W,C] -> ([B,H,W,C], labels [B,9]).

    `probability` is p of the module's table, in [0, 1]; at 0 the images are returned as they are.
    """
    chex.assert_rank(x0, 4)

    def one(key: Key, x0: Array) -> tuple[Array, Array]:
        transform = draw(key, probability, x0.dtype)
        return apply(transform, x0), labels(transform)

    return jax.vmap(one)(jax.random.split(key, x0.shape[0]), x0)


def warp(transform: Transform, x: Array) -> Array:
    """Scales, rotates, stretches and shifts an image, [H,W,C] -> [H,W,C]; not its flips.

    Let `source` take a pixel of the result to the place that its value comes from. Along each axis,

        u[m] = sum_i h[m - 2i + 5] x[i]      the image at twice the resolution: u[m] is at pixel m/2
        g[m] = u(2 source(m/2))              by linear interpolation
        y[o] = sum_k h[k] g[2o + k - 5]

    with the wavelet h = sym6. As sum_k h[k] h[k + 2i] is 1 for i = 0 and else 0, y = x where nothing
    moves, and a shift by whole pixels is exact.

    Beyond its edges the image goes on as its mirror image (without repeating the edge), without end.
    The paper's code instead pads by as much as the batch at hand needs, up to W - 1 pixels, and sees
    zeros beyond. A shape cannot depend on values here, and need not: the mirrored line repeats after
    2W - 2 pixels, so u is computed for one such period and read at indices modulo its length. It is
    the same wherever their padding reaches, without grey corners where it does not.
    """
    height, width, _ = x.shape
    up_y, up_x, down_y, down_x = (
        jnp.asarray(matrix(size), x.dtype) for matrix in (_up, _down) for size in (height, width)
    )
    u = jnp.einsum('mh,hwc,nw->mnc', up_y, x, up_x, precision='highest')
    g = _interpolate(u, *_source(transform, height, width, x.dtype))
    return jnp.einsum('hm,mnc,wn->hwc', down_y, g, down_x, precision='highest')


def _up(size: int) -> np.ndarray:
    """h[m - 2i + 5] folded over the mirrored line: [2 period, size], period = 2 size - 2."""
    period = max(2 * size - 2, 1)
    matrix = np.zeros((2 * period, size))
    for m in range(2 * period):
        for k in range((m + CENTRE) % 2, len(SYM6), 2):
            i = (m + CENTRE - k) // 2 % period
            matrix[m, min(i, period - i)] += SYM6[k]
    return matrix


def _down(size: int) -> np.ndarray:
    """h[k] at 2o + k: [size, 2 size + 10]. Its columns are g from index -5 on."""
    matrix = np.zeros((size, 2 * size + OVERLAP))
    for o in range(size):
        matrix[o, 2 * o : 2 * o + len(SYM6)] = SYM6
    return matrix


def _source(t: Transform, height: int, width: int, dtype: jnp.dtype) -> tuple[Array, Array]:
    """2 source(m/2) for m from -5 on along both axes: (row, column) in u, [2H + 10, 2W + 10] each."""

    def centred(size: int) -> Array:
        return jnp.arange(-CENTRE, 2 * size + OVERLAP - CENTRE, dtype=dtype) / 2 - (size - 1) / 2

    def turned_back(angle: Array, x: Array, y: Array) -> tuple[Array, Array]:
        cos, sin = jnp.cos(angle), jnp.sin(angle)  # y points down: this turns clockwise, as seen
        return cos * x - sin * y, sin * x + cos * y

    y, x = jnp.meshgrid(centred(height), centred(width), indexing='ij')
    x, y = x - SHIFT_STD * width * t.shift_x, y - SHIFT_STD * height * t.shift_y
    x, y = turned_back(t.axis, x, y)
    stretch, scale = (jnp.exp2(SCALE_STD * w) for w in (t.stretch, t.scale))
    x, y = turned_back(t.angle - t.axis, x / stretch, y * stretch)
    return 2 * y / scale + (height - 1), 2 * x / scale + (width - 1)


def _interpolate(u: Array, row: Array, column: Array) -> Array:
    """u [M,N,C], periodic, at the places (row, column), any shape S, bilinearly: [S, C]."""
    top, left = jnp.floor(row), jnp.floor(column)
    down, right = (row - top)[..., None], (column - left)[..., None]
    rows = [(top.astype(int) + i) % u.shape[0] for i in (0, 1)]
    columns = [(left.astype(int) + i) % u.shape[1] for i in (0, 1)]
    upper = (1 - right) * u[rows[0], columns[0]] + right * u[rows[0], columns[1]]
    lower = (1 - right) * u[rows[1], columns[0]] + right * u[rows[1], columns[1]]
    return (1 - down) * upper + down * lower
