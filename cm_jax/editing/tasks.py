"""Editing tasks, each of which says what is known of an image.

Known are some pixels (inpainting), the luma of each pixel (colourisation), or the mean of each patch
(super-resolution). In each case these are some of the coordinates of the image after an orthogonal
transform (arXiv 2303.01469, appendix D).
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
# Luma of red, green and blue (ITU-R BT.601). The paper gives these weights with four digits.
LUMA = (0.299, 0.587, 0.114)


class Task(NamedTuple):
    """An editing task for images x [B,H,W,C]: which coordinates of transform(x) are known."""

    transform: Callable[[Array], Array]  # orthogonal, from images to coordinates [B, ...]
    inverse: Callable[[Array], Array]  # from coordinates to images
    known: Array  # [B or 1, ...] bool, True for the coordinates that are known
    show: Callable[[Array], Array]  # makes `zero_shot.measured(task, x)` a picture to look at


def unchanged(x: Array) -> Array:
    """Returns x: the transform of inpainting, whose coordinates are the pixels."""
    return x


def orthogonal(first: np.ndarray) -> np.ndarray:
    """Returns an orthogonal, symmetric matrix [n, n] whose first row is the unit vector `first` [n].

    It is the Householder reflection that takes e_1 to it, I - 2 v v^T / v^T v with v = first - e_1,
    so `first` must not be e_1 = (1, 0, ..., 0) itself.
    """
    v = np.asarray(first, np.float64) - np.eye(len(first))[0]
    return np.eye(len(first)) - 2 * np.outer(v, v) / (v @ v)


def rotate(matrix: np.ndarray, x: Array) -> Array:
    """Returns the product of the matrix [n, n] with each vector along the last axis of x [..., n].

    It is computed in full float32; a TPU would round the inputs to bfloat16 by default.
    """
    return jnp.matmul(x, jnp.asarray(matrix.T, x.dtype), precision=jax.lax.Precision.HIGHEST)


def make_mask(name: str, image_shape: tuple[int, int, int], keys: Array) -> Array:
    """Returns a mask [B,H,W,1] for the B examples of keys [B], True where a pixel is known.

    In `center` the square in the middle, of half the height and width, is unknown; in `left` it is the
    left half; in `random` each pixel is known with probability 1/2, drawn with the key of the example.
    Raises UserError on another name.
    """
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
    """Returns the task in which the pixels are known where mask [B or 1,H,W,1] is True."""
    return Task(transform=unchanged, inverse=unchanged, known=mask, show=unchanged)


def colorization(image_shape: tuple[int, int, int]) -> Task:
    """Returns the task in which the luma of each pixel is known.

    The transform multiplies the three channels of a pixel by an orthogonal matrix whose first row is
    along LUMA, and the first of the products is known. Raises UserError unless images have 3 channels.
    """
    if image_shape[2] != 3:
        raise UserError(f'colorize needs images of 3 channels, and these have {image_shape[2]}')
    luma = np.array(LUMA)
    matrix = orthogonal(luma / np.linalg.norm(luma))
    known = jnp.array([True, False, False])[None, None, None]

    def show(y: Array) -> Array:
        return jnp.broadcast_to(rotate(luma[None], y), y.shape)  # grey: luma in every channel

    def transform(x: Array) -> Array:
        return rotate(matrix, x)

    # The matrix is symmetric and orthogonal, so it is its own inverse.
    return Task(transform=transform, inverse=transform, known=known, show=show)


def superresolution(image_shape: tuple[int, int, int], factor: int) -> Task:
    """Returns the task in which the mean of each patch of factor x factor pixels is known.

    The transform multiplies the factor^2 values of each patch and channel by an orthogonal matrix
    whose first row is constant, 1/factor, and the first of the products is known. Raises UserError
    unless factor is at least 2 and divides height and width of the images.
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
    return Task(transform=transform, inverse=inverse, known=known, show=unchanged)
