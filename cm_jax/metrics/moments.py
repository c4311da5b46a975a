"""Mean and covariance of features, accumulated in float64 over any number of batches.

`Moments` carries the scatter matrix S = sum_i (x_i - mean)(x_i - mean)^T about its own mean, so
nothing large cancels. Two are merged by Chan, Golub & LeVeque 1979, "Updating Formulae and a
Pairwise Algorithm for Computing Sample Variances":

    n = n_a + n_b,  delta = mean_b - mean_a,
    mean = mean_a + delta n_b / n,  S = S_a + S_b + delta delta^T n_a n_b / n

Host functions are numpy float64. A jitted program cannot have float64, so it returns
`centred_sums` about a fixed shift near the mean, and the host turns them into `Moments`.
"""

import hashlib
from typing import NamedTuple

import chex
import jax.numpy as jnp
import numpy as np

from cm_jax.types import Array


class Moments(NamedTuple):
    """Moments of `count` features of d numbers."""

    count: int
    mean: np.ndarray  # [d] float64
    scatter: np.ndarray  # [d, d] float64


def empty(d: int) -> Moments:
    """The moments of nothing: the neutral element of `merge`."""
    return Moments(0, np.zeros(d), np.zeros((d, d)))


def of(features: np.ndarray) -> Moments:
    """The moments of features [n, d], in two passes."""
    features = np.asarray(features, np.float64)
    if features.ndim != 2:
        raise ValueError(f'features have shape {features.shape}, not [n, d]')
    if not len(features):
        return empty(features.shape[1])
    mean = features.mean(0)
    centred = features - mean[None]
    return Moments(len(features), mean, centred.T @ centred)


def merge(a: Moments, b: Moments) -> Moments:
    """The moments of both sets together."""
    if a.mean.shape != b.mean.shape:
        raise ValueError(f'features of {len(a.mean)} and of {len(b.mean)} numbers')
    count = a.count + b.count
    if count == 0:
        return a
    delta = b.mean - a.mean
    scatter = a.scatter + b.scatter + np.outer(delta, delta) * (a.count * (b.count / count))
    return Moments(count, a.mean + delta * (b.count / count), scatter)


def update(m: Moments, features: np.ndarray) -> Moments:
    """`m` with the features [n, d] added."""
    return merge(m, of(features))


def covariance(m: Moments) -> np.ndarray:
    """The unbiased covariance S / (n - 1), [d, d]. Raises ValueError for fewer than 2 features."""
    if m.count < 2:
        raise ValueError(f'a covariance takes at least 2 samples, not {m.count}')
    return m.scatter / (m.count - 1)


def of_covariance(mean: np.ndarray, matrix: np.ndarray, count: int | None = None) -> Moments:
    """The moments with that mean [d] and unbiased covariance [d, d].

    `count` None is a number that nobody told: 2, for which S is the covariance itself.
    """
    count = 2 if count is None else count
    return Moments(count, np.asarray(mean, np.float64), np.float64(matrix) * (count - 1))


def rank_deficient(m: Moments) -> bool:
    """True if there are too few samples, n <= d, for a covariance of full rank.

    The distance is still defined then, but the estimate is strongly biased; protocols record it.
    """
    return m.count <= len(m.mean)


def checksum(count: int, mean: np.ndarray, matrix: np.ndarray) -> str:
    """sha256 over count, mean [d] and covariance [d, d]: whether a file of them is undamaged."""
    digest = hashlib.sha256(str(count).encode())
    for array in (mean, matrix):
        digest.update(np.ascontiguousarray(array, '<f8').tobytes())
    return digest.hexdigest()


def centred_sums(features: Array, shift: Array) -> tuple[Array, Array]:
    """Sums of y_i and y_i y_i^T with y = x - shift, for use in jitted programs.

    features [n, d], shift [d] -> ([d], [d, d]), float32 at full precision on every device. With a
    shift near the mean (a reference's, say) the relative error of the covariance stays near
    float32's 1e-7 sqrt(n); with shift 0 it grows by |mean|^2 / variance.
    """
    chex.assert_rank([features, shift], [2, 1])
    y = features.astype(jnp.float32) - shift.astype(jnp.float32)[None]
    return jnp.sum(y, axis=0), jnp.matmul(y.T, y, precision='highest')


def from_centred_sums(
    count: int, sums: Array | np.ndarray, outer: Array | np.ndarray, shift: Array
) -> Moments:
    """The moments behind `centred_sums` of `count` features; `shift` is the one given there."""
    sums, outer = np.asarray(sums, np.float64), np.asarray(outer, np.float64)
    if count == 0:
        return empty(len(sums))
    mean = sums / count
    shift = np.asarray(shift, np.float32).astype(np.float64)
    return Moments(count, shift + mean, outer - np.outer(sums, mean))
