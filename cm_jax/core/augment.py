"""Augmentation of training images that does not leak (Karras et al., arXiv 2206.00364, appendix F.2).

Each image is flipped, scaled, rotated, stretched and shifted, in this order and each at random. The
network receives nine labels that say what was done to the image. For sampling all labels are 0, which
means that nothing was done, so the network makes images like those that were not augmented. The
transforms are those of StyleGAN2-ADA (arXiv 2006.06676, appendix B). With the probability p of the
config, and w ~ N(0, 1) unless another law is named:

    labels  transform                                 drawn                probability  value
    0       flip left-right                                                1/2 (*)      1
    1       flip upside down                                               p/2          1
    2       scale by 2^{0.2 w}                        w                    p            w
    3, 4    rotate by w, anticlockwise                w ~ U(-pi, pi)       p            cos w - 1, sin w
    5, 6    stretch by 2^{0.2 w} along an axis at     w; r = 0 or, half    p            w cos r, w sin r
            the angle r, by 2^{-0.2 w} across it      the time, U(-pi, pi)
    7, 8    shift by (W w_x / 8, H w_y / 8) pixels    w_x, w_y             p            w_x, w_y

Angles are anticlockwise in the image as it is seen, and shifts are to the right and down. Scaling,
rotation and stretching are about the centre of the image. (*) This probability is 1/2 for every p > 0,
and 0 for p = 0.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from cm_jax.types import Array, Key

LABELS = 9
UPRIGHT = (0, 2, 5, 6, 7, 8)  # the labels that are left without flips upside down and rotations
SCALE_STD = 0.2  # standard deviation of log2 of the scale, and of log2 of the stretch
SHIFT_STD = 0.125  # standard deviation of the shift, in widths and heights of the image

# Daubechies' symlet with 12 taps. It is orthonormal to its shifts by even numbers and has six
# vanishing moments.
SYM6 = np.array(
    [
        *(0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633),
        *(0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252),
        *(-0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148),
    ]
)
CENTRE = 5  # the tap nearest to the filter's centre of mass, which is at 5.1
OVERLAP = len(SYM6) - 2  # filtering a line of n pixels takes 2 n + OVERLAP values


class Transform(NamedTuple):
    """What is done to one image: scalars, the `w` and `r` of the module's table.

    A field that is 0 leaves the image as it is.
    """

    flip_x: Array  # 0 or 1
    flip_y: Array  # 0 or 1
    scale: Array
    angle: Array  # radians
    stretch: Array
    axis: Array  # radians; it has no effect where `stretch` is 0
    shift_x: Array
    shift_y: Array


def draw(key: Key, probability: float | Array, dtype: DTypeLike = float) -> Transform:
    """Returns one random transform; `probability` is p of the module's table, in [0, 1]."""
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
    """Returns the labels [9] of a transform for the network, in the order of the module's table."""
    t = transform
    turned = (-2 * jnp.sin(t.angle / 2) ** 2, jnp.sin(t.angle))  # cos w - 1, exact also for small w
    stretched = (t.stretch * jnp.cos(t.axis), t.stretch * jnp.sin(t.axis))
    return jnp.stack([t.flip_x, t.flip_y, t.scale, *turned, *stretched, t.shift_x, t.shift_y])


def apply(transform: Transform, x0: Array) -> Array:
    """Returns the transformed image, [H,W,C] -> [H,W,C].

    A transform that only flips, or does nothing, keeps the values of `x0` bit for bit.
    """
    x0 = jnp.where(transform.flip_x > 0, x0[:, ::-1], x0)
    x0 = jnp.where(transform.flip_y > 0, x0[::-1], x0)
    moved = jnp.any(jnp.stack(transform[2:]) != 0)
    return jnp.where(moved, warp(transform, x0), x0)


def augment(
    key: Key, x0: Array, probability: float | Array, upright: bool = False
) -> tuple[Array, Array]:
    """Augments each image by a transform of its own: [B,H,W,C] -> ([B,H,W,C], labels [B,9]).

    `probability` is p of the module's table, in [0, 1]. At 0 the images are returned unchanged. If
    `upright`, none is flipped upside down or rotated, and the labels are those of UPRIGHT, [B,6].
    """
    chex.assert_rank(x0, 4)

    def augment_image(key: Key, x0: Array) -> tuple[Array, Array]:
        transform = draw(key, probability, x0.dtype)
        if not upright:
            return apply(transform, x0), labels(transform)
        zero = jnp.zeros_like(transform.angle)
        transform = transform._replace(flip_y=zero, angle=zero)
        return apply(transform, x0), labels(transform)[jnp.array(UPRIGHT)]

    return jax.vmap(augment_image)(jax.random.split(key, x0.shape[0]), x0)


def warp(transform: Transform, x: Array) -> Array:
    """Returns an image scaled, rotated, stretched and shifted, but not flipped: [H,W,C] -> [H,W,C].

    Let source(p) be the place in the image that the value of the result's pixel p comes from. The
    image is enlarged to twice its resolution, moved there, and reduced again. Along each axis, with
    the wavelet h = sym6:

        u[m] = sum_i h[m - 2i + 5] x[i]      the enlarged image: u[m] is at pixel m/2
        g[m] = u(2 source(m/2))              the moved image, by linear interpolation
        y[o] = sum_k h[k] g[2o + k - 5]      the result

    As sum_k h[k] h[k + 2i] is 1 for i = 0 and 0 for other i, y = x where nothing moves, and a shift by
    whole pixels is exact.

    The image is continued beyond its edges by its mirror image, again and again, without repeating
    the pixels of the edge. The paper's code instead pads by as much as the transforms of its batch
    need, up to W - 1 pixels, and takes zeros beyond. In JAX a shape cannot depend on values. The
    mirrored line repeats after 2W - 2 pixels, so it is enough to compute u for one period and to read
    it at indices modulo its length. The result equals theirs wherever their padding reaches; where it
    does not, this one has no grey corners.
    """
    height, width, _ = x.shape
    up_y, up_x, down_y, down_x = (
        jnp.asarray(matrix(size), x.dtype) for matrix in (_up, _down) for size in (height, width)
    )
    u = jnp.einsum('mh,hwc,nw->mnc', up_y, x, up_x, precision='highest')
    g = _interpolate(u, *_source(transform, height, width, x.dtype))
    return jnp.einsum('hm,mnc,wn->hwc', down_y, g, down_x, precision='highest')


def _up(size: int) -> np.ndarray:
    """Returns the matrix of x -> u in `warp` for a line of `size` pixels: [2 period, size].

    Entry (m, i) sums h[m - 2j + 5] over the pixels j of the mirrored line that show pixel i. The
    mirrored line repeats after period = 2 size - 2 pixels.
    """
    period = max(2 * size - 2, 1)
    matrix = np.zeros((2 * period, size))
    for m in range(2 * period):
        for k in range((m + CENTRE) % 2, len(SYM6), 2):
            i = (m + CENTRE - k) // 2 % period
            matrix[m, min(i, period - i)] += SYM6[k]
    return matrix


def _down(size: int) -> np.ndarray:
    """Returns the matrix of g -> y in `warp`: [size, 2 size + 10], h[k] at row o, column 2o + k.

    Column 0 belongs to g[-5].
    """
    matrix = np.zeros((size, 2 * size + OVERLAP))
    for o in range(size):
        matrix[o, 2 * o : 2 * o + len(SYM6)] = SYM6
    return matrix


def _source(t: Transform, height: int, width: int, dtype: jnp.dtype) -> tuple[Array, Array]:
    """Returns the rows and the columns in u that `warp` reads g from, [2H + 10, 2W + 10] each.

    They are 2 source(m/2) along both axes, for m from -5 on.
    """

    def centred(size: int) -> Array:
        """The places m/2, in pixels from the centre of a line."""
        return jnp.arange(-CENTRE, 2 * size + OVERLAP - CENTRE, dtype=dtype) / 2 - (size - 1) / 2

    def turned_back(angle: Array, x: Array, y: Array) -> tuple[Array, Array]:
        # As y points down, this turns clockwise in the image as it is seen.
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        return cos * x - sin * y, sin * x + cos * y

    y, x = jnp.meshgrid(centred(height), centred(width), indexing='ij')
    x, y = x - SHIFT_STD * width * t.shift_x, y - SHIFT_STD * height * t.shift_y
    x, y = turned_back(t.axis, x, y)
    stretch, scale = (jnp.exp2(SCALE_STD * w) for w in (t.stretch, t.scale))
    x, y = turned_back(t.angle - t.axis, x / stretch, y * stretch)
    return 2 * y / scale + (height - 1), 2 * x / scale + (width - 1)


def _interpolate(u: Array, row: Array, column: Array) -> Array:
    """Returns the values [S, C] of u [M,N,C] at the places (row, column), by bilinear interpolation.

    `row` and `column` are of one shape S, whichever; u is periodic along both axes.
    """
    top, left = jnp.floor(row), jnp.floor(column)
    down, right = (row - top)[..., None], (column - left)[..., None]
    rows = [(top.astype(int) + i) % u.shape[0] for i in (0, 1)]
    columns = [(left.astype(int) + i) % u.shape[1] for i in (0, 1)]
    upper = (1 - right) * u[rows[0], columns[0]] + right * u[rows[0], columns[1]]
    lower = (1 - right) * u[rows[1], columns[0]] + right * u[rows[1], columns[1]]
    return (1 - down) * upper + down * lower
