"""Fidelity and coverage apart: precision and recall, density and coverage, of two sets of features.

A ball about each feature, as large as the distance to its k-th nearest neighbour in its own set:

    precision  share of the samples in a ball of a real feature
    recall     share of the real features in a ball of a sample
    density    number of real balls that a sample is in, by k, the mean over samples
    coverage   share of the real balls with a sample in them

The first two are of Kynkäänniemi et al. 2019 (arXiv 1904.06991), the others of Naeem et al. 2020
(arXiv 2002.09797).

A ball of the first two is closed, of the others open, as in the authors' code. Distances come in
blocks of rows from a float32 product on the device; no n x n matrix is ever held. One below the
rounding of that product is 0.
"""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cm_jax.types import Array

ROUNDING = 4e-6  # of |x|^2 + |y|^2: squared distances below are 0
BLOCK = 1024  # rows: [1024, 50000] float32 are 200 MB


class PrecisionRecall(NamedTuple):
    """Each in [0, 1]."""

    precision: float
    recall: float


class DensityCoverage(NamedTuple):
    """Density >= 0, about 1 for equal distributions and unbounded; coverage in [0, 1]."""

    density: float
    coverage: float


class Counts(NamedTuple):
    """How often a feature of one set is in a ball of another."""

    of_balls: np.ndarray  # [n] points in each ball
    of_points: np.ndarray  # [m] balls about each point


def precision_recall(
    real: np.ndarray, samples: np.ndarray, k: int = 3, block: int = BLOCK
) -> PrecisionRecall:
    """Of real [n, d] and samples [m, d]; NaN if a feature is not finite.

    Raises ValueError on shapes that do not fit and unless 1 <= k < n, m.
    """
    _check(real, samples, k)
    if not _finite(real, samples):
        return PrecisionRecall(float('nan'), float('nan'))
    real, samples = centred(real, samples)
    precision = count_inside(real, radii(real, k, block), samples, True, block).of_points
    recall = count_inside(samples, radii(samples, k, block), real, True, block).of_points
    return PrecisionRecall(float(np.mean(precision > 0)), float(np.mean(recall > 0)))


def density_coverage(
    real: np.ndarray, samples: np.ndarray, k: int = 5, block: int = BLOCK
) -> DensityCoverage:
    """Of real [n, d] and samples [m, d]; NaN if a feature is not finite.

    Raises ValueError on shapes that do not fit and unless 1 <= k < n.
    """
    _check(real, samples, k, least=1)
    if not _finite(real, samples):
        return DensityCoverage(float('nan'), float('nan'))
    real, samples = centred(real, samples)
    counts = count_inside(real, radii(real, k, block), samples, False, block)
    density = counts.of_points.sum() / (k * len(samples))
    return DensityCoverage(float(density), float(np.mean(counts.of_balls > 0)))


def centred(real: np.ndarray, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both less the mean of the real features, float32: a mean in common costs the product digits.

    The mean is rounded as the features are, in both alike, so that no float64 copy is made.
    """
    mean = np.mean(real, axis=0, dtype=np.float64)[None]
    return tuple((x - mean.astype(x.dtype)).astype(np.float32, copy=False) for x in (real, samples))


def radii(x: np.ndarray, k: int, block: int = BLOCK) -> np.ndarray:
    """[n] float32: squared distance of each row of x [n, d] to its k-th nearest other row."""
    found, points = np.empty(len(x), np.float32), jnp.asarray(x)
    for first, rows in _blocks(x, block):
        found[first : first + len(rows)] = _radii(_filled(rows, block), points, first, k)[
            : len(rows)
        ]
    return found


def count_inside(
    centres: np.ndarray,
    squared_radii: np.ndarray,
    points: np.ndarray,
    closed: bool,
    block: int = BLOCK,
) -> Counts:
    """Counts the points [m, d] in balls about centres [n, d], with their edge if `closed`."""
    of_balls = np.empty(len(centres), np.int64)
    of_points, points = np.zeros(len(points), np.int64), jnp.asarray(points)
    for first, rows in _blocks(centres, block):
        edges = squared_radii[first : first + len(rows)]
        balls, inside = _inside(
            _filled(rows, block), _filled(edges, block, -1), points, closed=closed
        )
        of_balls[first : first + len(rows)] = balls[: len(rows)]
        of_points += inside
    return Counts(of_balls, of_points)


def squared_distances(x: Array, y: Array) -> Array:
    """[b, d], [m, d] -> [b, m] float32, as |x|^2 + |y|^2 - 2 x . y; for use in jitted programs."""
    scale = jnp.sum(x**2, axis=1)[:, None] + jnp.sum(y**2, axis=1)[None]
    found = scale - 2 * jnp.matmul(x, y.T, precision='highest')
    return jnp.where(found < ROUNDING * scale, 0, found)


@partial(jax.jit, static_argnames='k')
def _radii(rows: Array, points: Array, first: Array, k: int) -> Array:
    found = squared_distances(rows, points)
    columns = jnp.arange(len(points))[None]
    found = jnp.where(first + jnp.arange(len(rows))[:, None] == columns, jnp.inf, found)

    def without_nearest(_: Array, found: Array) -> Array:
        return jnp.where(columns == jnp.argmin(found, axis=1)[:, None], jnp.inf, found)

    # On a CPU lax.top_k sorts whole rows, which takes several times as long as the distances.
    return jax.lax.fori_loop(0, k - 1, without_nearest, found).min(axis=1)


@partial(jax.jit, static_argnames='closed')
def _inside(rows: Array, edges: Array, points: Array, closed: bool) -> tuple[Array, Array]:
    found, edges = squared_distances(rows, points), edges[:, None]
    inside = found <= edges if closed else found < edges
    return jnp.sum(inside, axis=1), jnp.sum(inside, axis=0)


def _blocks(x: np.ndarray, block: int) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, rows) of each block."""
    return ((first, x[first : first + block]) for first in range(0, len(x), block))


def _filled(rows: np.ndarray, block: int, value: float = 0) -> np.ndarray:
    """Filled up to a whole block, so as not to compile again."""
    pad = ((0, block - len(rows)), *((0, 0) for _ in rows.shape[1:]))
    return np.pad(rows, pad, constant_values=value)


def _finite(*sets: np.ndarray) -> bool:
    return all(np.isfinite(x).all() for x in sets)


def _check(real: np.ndarray, samples: np.ndarray, k: int, least: int | None = None) -> None:
    """`least`: how many samples there must be, k + 1 if not given."""
    if real.ndim != 2 or samples.ndim != 2 or real.shape[1] != samples.shape[1]:
        shapes = f'{real.shape} and {samples.shape}'
        raise ValueError(f'features have shapes {shapes}, not [n, d] and [m, d]')
    least = k + 1 if least is None else least
    if k < 1 or len(real) <= k or len(samples) < least:
        raise ValueError(
            f'k = {k} nearest neighbours among {len(real)} and {len(samples)} features'
        )
