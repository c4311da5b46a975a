"""Fidelity and variety of samples, measured apart: precision, recall, density and coverage.

Two sets of features are compared, those of real images and those of samples. Each feature has a ball
about it, whose radius is the distance to its k-th nearest neighbour in its own set:

    precision  share of the samples that lie in the ball of a real feature
    recall     share of the real features that lie in the ball of a sample
    density    number of real balls that a sample lies in, divided by k; the mean over the samples
    coverage   share of the real balls that have a sample in them

Precision and recall are by Kynkäänniemi et al. 2019 (arXiv 1904.06991), density and coverage by Naeem
et al. 2020 (arXiv 2002.09797). As in the code of the authors, a point on the edge of a ball is inside
for precision and recall, and outside for density and coverage.

The distances are computed on the device by a float32 matrix product, for one block of rows at a time,
so no n x n matrix is ever in memory. A distance below the rounding error of that product is taken as 0.
The radii of the real balls, most of the work where there are more real images than samples, are
computed once for all sets of samples.
"""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cm_jax.types import Array

ROUNDING = 4e-6  # squared distances below this share of |x|^2 + |y|^2 are taken as 0
BLOCK = 1024  # rows in a block: [1024, 50000] float32 are 200 MB


class PrecisionRecall(NamedTuple):
    """Precision and recall, each in [0, 1]."""

    precision: float
    recall: float


class DensityCoverage(NamedTuple):
    """Density >= 0, which is about 1 for equal distributions and unbounded; coverage in [0, 1]."""

    density: float
    coverage: float


class Counts(NamedTuple):
    """How many points of one set lie in the balls of another."""

    of_balls: np.ndarray  # [n] the number of points in each ball
    of_points: np.ndarray  # [m] the number of balls that each point lies in


class RealFeatures:
    """Features of real images [n, d], and the radii of their balls, once they were asked for."""

    def __init__(self, array: np.ndarray):
        self.array = array
        self._squared_radii: dict[int, np.ndarray] = {}

    @functools.cached_property
    def _mean(self) -> np.ndarray:
        return np.asarray(np.mean(self.array, axis=0, dtype=np.float64))[None]

    def centred(self, x: np.ndarray) -> np.ndarray:
        """Returns features minus the mean of the real ones, as float32.

        Distances stay the same, and the matrix product behind them gets more precise: a large common
        mean would cost it digits. The mean is rounded to the type of the features before it is
        subtracted, so that no float64 copy of them is made.
        """
        return (x - self._mean.astype(x.dtype)).astype(np.float32, copy=False)

    def squared_radii(self, k: int, block: int = BLOCK) -> np.ndarray:
        """Returns `radii` of the centred features [n]."""
        if k not in self._squared_radii:
            self._squared_radii[k] = radii(self.centred(self.array), k, block)
        return self._squared_radii[k]


def precision_recall(
    real: RealFeatures, samples: np.ndarray, k: int = 3, block: int = BLOCK
) -> PrecisionRecall:
    """Returns precision and recall of real features [n, d] and samples [m, d].

    Both are NaN if a feature is not finite. Raises ValueError if the shapes do not fit, and unless
    1 <= k < n and k < m.
    """
    _check(real.array, samples, k)
    if not _finite(real.array, samples):
        return PrecisionRecall(float('nan'), float('nan'))
    squared_radii, x, y = (
        real.squared_radii(k, block),
        real.centred(real.array),
        real.centred(samples),
    )
    precision = count_inside(x, squared_radii, y, True, block).of_points
    recall = count_inside(y, radii(y, k, block), x, True, block).of_points
    return PrecisionRecall(float(np.mean(precision > 0)), float(np.mean(recall > 0)))


def density_coverage(
    real: RealFeatures, samples: np.ndarray, k: int = 5, block: int = BLOCK
) -> DensityCoverage:
    """Returns density and coverage of real features [n, d] and samples [m, d].

    Both are NaN if a feature is not finite. Raises ValueError if the shapes do not fit, and unless
    1 <= k < n and m >= 1.
    """
    _check(real.array, samples, k, least=1)
    if not _finite(real.array, samples):
        return DensityCoverage(float('nan'), float('nan'))
    squared_radii, x, y = (
        real.squared_radii(k, block),
        real.centred(real.array),
        real.centred(samples),
    )
    counts = count_inside(x, squared_radii, y, False, block)
    density = counts.of_points.sum() / (k * len(samples))
    return DensityCoverage(float(density), float(np.mean(counts.of_balls > 0)))


def radii(x: np.ndarray, k: int, block: int = BLOCK) -> np.ndarray:
    """Returns the squared distance of each row of x [n, d] to its k-th nearest other row.

    The result is [n] float32.
    """
    squared_radii, points = np.empty(len(x), np.float32), jnp.asarray(x)
    for first, rows in _blocks(x, block):
        of_block = _radii(_filled(rows, block), points, first, k)
        squared_radii[first : first + len(rows)] = of_block[: len(rows)]
    return squared_radii


def count_inside(
    centres: np.ndarray,
    squared_radii: np.ndarray,
    points: np.ndarray,
    closed: bool,
    block: int = BLOCK,
) -> Counts:
    """Counts the points [m, d] that lie in balls about the centres [n, d].

    A point on the edge of a ball lies in it if `closed`.
    """
    of_balls, of_points = np.empty(len(centres), np.int64), np.zeros(len(points), np.int64)
    on_device = jnp.asarray(points)
    for first, rows in _blocks(centres, block):
        edges = squared_radii[first : first + len(rows)]
        balls, inside = _inside(
            _filled(rows, block), _filled(edges, block, -1), on_device, closed=closed
        )
        of_balls[first : first + len(rows)] = balls[: len(rows)]
        of_points += inside
    return Counts(of_balls, of_points)


def squared_distances(x: Array, y: Array) -> Array:
    """Returns the squared distances [b, m] of x [b, d] and y [m, d], for use in jitted programs.

    They are computed as |x|^2 + |y|^2 - 2 x . y in float32. One below ROUNDING (|x|^2 + |y|^2) is 0.
    """
    scale = jnp.sum(x**2, axis=1)[:, None] + jnp.sum(y**2, axis=1)[None]
    distances = scale - 2 * jnp.matmul(x, y.T, precision='highest')
    return jnp.where(distances < ROUNDING * scale, 0, distances)


@functools.partial(jax.jit, static_argnames='k')
def _radii(rows: Array, points: Array, first: Array, k: int) -> Array:
    """Returns the squared distance [b] of each row to its k-th nearest other point.

    Row i of the block is point first + i, which is not a neighbour of itself.
    """
    distances = squared_distances(rows, points)
    columns = jnp.arange(len(points))[None]
    distances = jnp.where(first + jnp.arange(len(rows))[:, None] == columns, jnp.inf, distances)
    # On a CPU lax.top_k sorts whole rows, which takes several times as long as the distances. From one
    # value to the next larger one instead, until k points are that near or nearer.
    radius = jnp.min(distances, axis=1, keepdims=True)
    for _ in range(k - 1):
        count = jnp.sum(distances <= radius, axis=1, keepdims=True)
        beyond = jnp.min(jnp.where(distances > radius, distances, jnp.inf), axis=1, keepdims=True)
        radius = jnp.where(count >= k, radius, beyond)
    return radius[:, 0]


@functools.partial(jax.jit, static_argnames='closed')
def _inside(rows: Array, edges: Array, points: Array, closed: bool) -> tuple[Array, Array]:
    """Returns the number of points in each ball [b], and the number of balls about each point [m].

    `rows` [b, d] are the centres of the balls, and `edges` [b] their squared radii.
    """
    distances, edges = squared_distances(rows, points), edges[:, None]
    inside = distances <= edges if closed else distances < edges
    return jnp.sum(inside, axis=1), jnp.sum(inside, axis=0)


def _blocks(x: np.ndarray, block: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (index of the first row, rows) for each block of rows of x."""
    return ((first, x[first : first + block]) for first in range(0, len(x), block))


def _filled(rows: np.ndarray, block: int, value: float = 0) -> np.ndarray:
    """Returns the rows filled up to a whole block, so that the last block needs no new compilation."""
    pad = ((0, block - len(rows)), *((0, 0) for _ in rows.shape[1:]))
    return np.pad(rows, pad, constant_values=value)


def _finite(*sets: np.ndarray) -> bool:
    return all(np.isfinite(x).all() for x in sets)


def _check(real: np.ndarray, samples: np.ndarray, k: int, least: int | None = None) -> None:
    """Raises ValueError if the shapes do not fit, unless 1 <= k < n, or on too few samples.

    `least` is the least number of samples; None is k + 1.
    """
    if real.ndim != 2 or samples.ndim != 2 or real.shape[1] != samples.shape[1]:
        shapes = f'{real.shape} and {samples.shape}'
        raise ValueError(f'features have shapes {shapes}, not [n, d] and [m, d]')
    least = k + 1 if least is None else least
    if k < 1 or len(real) <= k or len(samples) < least:
        raise ValueError(
            f'k = {k} nearest neighbours among {len(real)} and {len(samples)} features'
        )
