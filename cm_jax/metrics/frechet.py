"""The Fréchet distance between two sets of features, each taken for a Gaussian."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from cm_jax.metrics.moments import Moments, covariance

EPS = np.finfo(np.float64).eps


class Frechet(NamedTuple):
    """A distance, and how well conditioned the square root in it is.

    `rank` is the number of eigenvalues of C_a C_b above their rounding, at most the dimension d, and
    `condition` the largest of them by the smallest: NaN if there is none. An eigenvalue at the
    rounding, the largest by 1 / (eps d), is known to no digit, yet its root weighs only
    (eps d)^{1/2} of the largest one.
    """

    distance: float
    condition: float
    rank: int


def frechet_distance(a: Moments, b: Moments) -> float:
    """`frechet(a, b).distance`."""
    return frechet(a, b).distance


def frechet(a: Moments, b: Moments) -> Frechet:
    """The squared 2-Wasserstein distance of N(m_a, C_a) and N(m_b, C_b), with its condition.

        |m_a - m_b|^2 + tr C_a + tr C_b - 2 tr (C_a C_b)^{1/2}

    Heusel et al. 2017 (arXiv 1706.08500), eq. 6. With C_a = R R^T (R = V diag(l)^{1/2} from an
    eigendecomposition, without the directions where l is rounding) the last trace is that of
    (R^T C_b R)^{1/2}, a symmetric matrix: singular covariances are nothing special, and nothing is
    added to them. In float64.

    Symmetric bit for bit, at least 0, and within about 1e-8 (trace) d of 0 on itself. Returns NaN
    if a moment is not finite, so that a search can drop such a candidate. Raises ValueError on
    different dimensions or fewer than 2 samples.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f'features of {len(a.mean)} and of {len(b.mean)} numbers')
    # Fewer samples first: the lower rank is decomposed. The bytes only make the order unique.
    a, b = sorted((a, b), key=lambda m: (m.count, m.scatter.tobytes()))
    cov_a, cov_b = covariance(a), covariance(b)
    if not all(np.isfinite(array).all() for array in (a.mean, b.mean, cov_a, cov_b)):
        return Frechet(float('nan'), float('nan'), 0)
    distance, squares = _compare(a, cov_a, _root(cov_a), b, cov_b)
    known = squares[squares > squares.max(initial=0) * len(a.mean) * EPS]
    condition = float(known[-1] / known[0]) if known.size else float('nan')
    return Frechet(distance, condition, known.size)


def distance_to(a: Moments) -> Callable[[Moments], float]:
    """`distance(b)`: frechet_distance(a, b) to rounding, with the root of C_a taken once for all b."""
    cov_a = covariance(a)
    root = _root(cov_a)

    def distance(b: Moments) -> float:
        cov_b = covariance(b)
        if not (np.isfinite(b.mean).all() and np.isfinite(cov_b).all()):
            return float('nan')
        return _compare(a, cov_a, root, b, cov_b)[0]

    return distance


def _root(cov: np.ndarray) -> np.ndarray:
    """R with R R^T = cov, without the directions that are rounding."""
    values, vectors = np.linalg.eigh(cov)
    kept = values > values[-1] * len(values) * EPS
    return vectors[:, kept] * np.sqrt(values[kept])[None]


def _compare(
    a: Moments, cov_a: np.ndarray, root: np.ndarray, b: Moments, cov_b: np.ndarray
) -> tuple[float, np.ndarray]:
    """The distance, at least 0, and the eigenvalues of R^T C_b R, ascending."""
    squares = np.linalg.eigvalsh(root.T @ cov_b @ root)
    overlap = np.sqrt(np.maximum(squares, 0)).sum()
    distance = np.sum((a.mean - b.mean) ** 2) + np.trace(cov_a) + np.trace(cov_b) - 2 * overlap
    return max(float(distance), 0.0), squares
