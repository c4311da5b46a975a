"""Mean and covariance of features, accumulated in float64 over any number of batches.

`Moments` holds the scatter matrix S = sum_i (x_i - mean)(x_i - mean)^T about its own mean, so no
large numbers cancel. Two `Moments` are merged by Chan, Golub & LeVeque 1979, "Updating Formulae and
a Pairwise Algorithm for Computing Sample Variances":

    n = n_a + n_b,  delta = mean_b - mean_a,
    mean = mean_a + delta n_b / n,  S = S_a + S_b + delta delta^T n_a n_b / n

The functions on the host compute in numpy's float64. A jitted program computes in float32, so it
returns `centred_sums` about a fixed shift near the mean, and the host turns them into `Moments`.
"""

import dataclasses
import hashlib

import chex
import jax.numpy as jnp
import numpy as np

from cm_jax.types import Array


@dataclasses.dataclass(frozen=True)
class Moments:
    """The moments of a set of feature vectors of d numbers each."""

    count: int  # the number of feature vectors
    mean: np.ndarray  # [d] float64
    scatter: np.ndarray  # [d, d] float64, the S above


def empty(d: int) -> Moments:
    """Returns the moments of an empty set, which `merge` adds nothing with."""
    return Moments(0, np.zeros(d), np.zeros((d, d)))


def of(features: np.ndarray) -> Moments:
    """Returns the moments of features [n, d], computed in two passes.

    Raises ValueError on another shape.
    """
    features = np.asarray(features, np.float64)
    if features.ndim != 2:
        raise ValueError(f'features have shape {features.shape}, not [n, d]')
    if not len(features):
        return empty(features.shape[1])
    mean = features.mean(0)
    centred = features - mean[None]
    return Moments(len(features), mean, centred.T @ centred)


def merge(a: Moments, b: Moments) -> Moments:
    """Returns the moments of both sets together. Raises ValueError if their dimensions differ."""
    if a.mean.shape != b.mean.shape:
        raise ValueError(f'features of {len(a.mean)} and of {len(b.mean)} numbers')
    count = a.count + b.count
    if count == 0:
        return a
    delta = b.mean - a.mean
    scatter = a.scatter + b.scatter + np.outer(delta, delta) * (a.count * (b.count / count))
    return Moments(count, a.mean + delta * (b.count / count), scatter)


def update(m: Moments, features: np.ndarray) -> Moments:
    """Returns the moments `m` after the features [n, d] were added to their set."""
    return merge(m, of(features))


def covariance(m: Moments) -> np.ndarray:
    """Returns the unbiased covariance S / (n - 1), [d, d].

    Raises ValueError if there are fewer than 2 samples.
    """
    if m.count < 2:
        raise ValueError(f'a covariance takes at least 2 samples, not {m.count}')
    return m.scatter / (m.count - 1)


def of_covariance(mean: np.ndarray, matrix: np.ndarray, count: int | None = None) -> Moments:
    """Returns the moments with the given mean [d] and unbiased covariance `matrix` [d, d].

    `count` None means that the number of samples is unknown. It is then set to 2, for which S equals
    the covariance.
    """
    count = 2 if count is None else count
    scatter = np.asarray(matrix, np.float64) * (count - 1)
    return Moments(count, np.asarray(mean, np.float64), scatter)


def rank_deficient(m: Moments) -> bool:
    """Returns True if there are too few samples, n <= d, for a covariance of full rank.

    A Fréchet distance is still defined then, but its estimate is strongly biased. Protocols record
    whether this is so.
    """
    return m.count <= len(m.mean)


def checksum(count: int, mean: np.ndarray, matrix: np.ndarray) -> str:
    """Returns the sha256 of count, mean [d] and covariance [d, d].

    It is stored beside them in a file, and shows whether the file is undamaged.
    """
    digest = hashlib.sha256(str(count).encode())
    for array in (mean, matrix):
        digest.update(np.ascontiguousarray(array, '<f8').tobytes())
    return digest.hexdigest()


def centred_sums(features: Array, shift: Array) -> tuple[Array, Array]:
    """Returns the sums of y_i [d] and of y_i y_i^T [d, d] with y = x - shift, for jitted programs.

    `features` x is [n, d] and `shift` [d]. The sums are float32 (of float64 features, float64), and
    the product has full float32 precision on every device. With a shift near the mean, such as the
    mean of a reference, the relative error of the covariance stays near float32's 1e-7 sqrt(n).
    With shift 0 it grows by the factor |mean|^2 / variance.
    """
    chex.assert_rank([features, shift], [2, 1])
    dtype = jnp.promote_types(features.dtype, jnp.float32)
    y = features.astype(dtype) - shift.astype(dtype)[None]
    return jnp.sum(y, axis=0), jnp.matmul(y.T, y, precision='highest')


def from_centred_sums(
    count: int, sums: Array | np.ndarray, outer: Array | np.ndarray, shift: Array | np.ndarray
) -> Moments:
    """Returns the moments of `count` features from their `centred_sums` with the same `shift`."""
    sums, outer = np.asarray(sums, np.float64), np.asarray(outer, np.float64)
    if count == 0:
        return empty(len(sums))
    mean = sums / count
    mean_shift = np.asarray(shift, np.float32).astype(np.float64)  # the shift as the program had it
    return Moments(count, mean_shift + mean, outer - np.outer(sums, mean))


def centred_sums_cotangents(
    count: int, sums: np.ndarray, by_mean: np.ndarray, by_covariance: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the derivatives of a number by the `centred_sums` of `count` features.

    `by_mean` [d] and `by_covariance` [d, d], which is symmetric, are its derivatives by the mean m and
    the unbiased covariance C of the features. With s and S the sums, m = s / n + shift and
    C = (S - s s^T / n) / (n - 1), so that

        d/dS = C' / (n - 1),   d/ds = m' / n - 2 C' s / (n (n - 1))
    """
    sums = np.asarray(sums, np.float64)
    by_outer = by_covariance / (count - 1)
    return by_mean / count - 2 / count * (by_outer @ sums), by_outer
