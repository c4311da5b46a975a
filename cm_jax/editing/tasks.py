"""What is known of an image in an editing task: pixels, the luma of each pixel, or means of patches.

Each task is some coordinates of the image after an orthogonal transform (arXiv 2303.01469, appendix D).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cm_jax.errors import UserError, check_name
from cm_jax.types import Array

TASKS = ('inpaint', 'colorize', 'superres')
MASKS = ('center', 'left', 'random')
LUMA = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601); the paper's, with four digits


class Task(NamedTuple):
    """What is known: `known` [B or 1, ...] bool marks coordinates of `transform(x)`, x [B,H,W,C].

    `transform` is orthogonal and `inverse` undoes it; `show` makes a picture of `measured(task, x)`.
    """

    transform: Callable[[Array], Array]
    inverse: Callable[[Array], Array]
    known: Array
    show: Callable[[Array], Array]


def unchanged(x: Array) -> Array:
    return x


def orthogonal(first: np.ndarray) -> np.ndarray:
    """An orthogonal, symmetric matrix [n, n] whose first row is the unit vector `first`, not e_1.

    Householder's reflection of e_1 into it: I - 2 v v^T / v^T v, v = first - e_1.
    """
    v = np.asarray(first, np.float64) - np.eye(len(first))[0]
    return np.eye(len(first)) - 2 * np.outer(v, v) / (v @ v)


def rotate(matrix: np.ndarray, x: Array) -> Array:
    """matrix x over the last axis, in full float32 (a TPU's default would round to bfloat16)."""
    return jnp.matmul(x, jnp.asarray(matrix.T, x.dtype), precision=jax.lax.Precision.HIGHEST)


def make_mask(name: str, image_shape: tuple[int, int, int], keys: Array) -> Array:
    """[B,H,W,1], True where a pixel is known. `center` lacks the middle half of both sides, `left`
    the left half, `random` each pixel with probability 1/2, by the example's key in keys [B]."""
    check_name('mask', name, MASKS)
    height, width, _ = image_shape
    row, column = np.mgrid[:height, :width]
    if name == 'random':
        draw = jax.vmap(lambda key: jax.random.bernoulli(key, 0.5, (height, width, 1)))
        return draw(keys)
    if name == 'left':
        known = column >= width // 2
    else:
        tall, wide = height // 4, width // 4
        inside = (row >= tall) & (row < height - tall) & (column >= wide) & (column < width - wide)
        known = ~inside
    return jnp.broadcast_to(known[None, :, :, None], (len(keys), height, width, 1))


def inpainting(mask: Array) -> Task:
    """The pixels where mask [B or 1,H,W,1] is True are known."""
    return Task(unchanged, unchanged, mask, unchanged)


def colorization(image_shape: tuple[int, int, int]) -> Task:
    """The luma of each pixel is known: the first of three channels turned by an orthogonal matrix
    whose first row is along LUMA. Raises UserError unless images have 3 channels."""
    if image_shape[2] != 3:
        raise UserError(f'colorize needs images of 3 channels, and these have {image_shape[2]}')
    luma = np.array(LUMA)
    matrix = orthogonal(luma / np.linalg.norm(luma))
    known = jnp.array([True, False, False])[None, None, None]

    def show(y: Array) -> Array:
        return jnp.broadcast_to(rotate(luma[None], y), y.shape)  # grey: luma in every channel

    return Task(lambda x: rotate(matrix, x), lambda x: rotate(matrix, x), known, show)


def superresolution(image_shape: tuple[int, int, int], factor: int) -> Task:
    """The mean of each factor x factor patch is known, in each channel: the first of its factor^2
    coordinates by an orthogonal matrix whose first row is constant, 1/factor.

    Raises UserError unless factor, at least 2, divides both sides of the images.
    """
    height, width, channels = image_shape
    if factor < 2 or height % factor or width % factor:
        raise UserError(
            f'superres needs a factor >= 2 that divides images of {height}x{width}, got {factor}'
        )
    matrix = orthogonal(np.full(factor**2, 1 / factor))
    rows, columns = height // factor, width // factor

    def transform(x: Array) -> Array:
        patches = x.reshape(-1, rows, factor, columns, factor, channels)
        flat = patches.transpose(0, 1, 3, 5, 2, 4).reshape(-1, rows, columns, channels, factor**2)
        return rotate(matrix, flat)

    def inverse(z: Array) -> Array:
        patches = rotate(matrix, z).reshape(-1, rows, columns, channels, factor, factor)
        return patches.transpose(0, 1, 4, 2, 5, 3).reshape(-1, height, width, channels)

    known = (jnp.arange(factor**2) == 0)[None, None, None, None]
    return Task(transform, inverse, known, unchanged)
