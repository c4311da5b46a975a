"""The Fréchet distance between two sets of features, each described by a Gaussian."""

from typing import NamedTuple

import numpy as np

from cm_jax.metrics.moments import Moments, covariance

EPS = np.finfo(np.float64).eps


class Frechet(NamedTuple):
    """A distance, and how well conditioned the matrix square root in it is.

    An eigenvalue of C_a C_b counts as known if it is above the rounding error, which is eps d times
    the largest eigenvalue for d dimensions. Below that not one of its digits is known. Such an
    eigenvalue hardly matters: its root is at most (eps d)^{1/2} of the largest root.
    """

    distance: float
    condition: float  # the largest known eigenvalue divided by the smallest; NaN if there is none
    rank: int  # the number of known eigenvalues, at most d


def frechet_distance(a: Moments, b: Moments) -> float:
    """Returns the distance of `frechet(a, b)`, without its condition."""
    return frechet(a, b).distance


def frechet(a: Moments, b: Moments) -> Frechet:
    """Returns the squared 2-Wasserstein distance of N(m_a, C_a) and N(m_b, C_b), in float64.

        |m_a - m_b|^2 + tr C_a + tr C_b - 2 tr (C_a C_b)^{1/2}

    (Heusel et al. 2017, arXiv 1706.08500, equation 6.) Let C_a = R R^T, with R = V diag(l)^{1/2} from
    an eigendecomposition without the directions in which l is rounding error. Then the last trace is
    that of (R^T C_b R)^{1/2}, the root of a symmetric matrix. So singular covariances need no special
    treatment, and nothing is added to them.

    The distance of (a, b) equals that of (b, a) bit for bit. It is at least 0, and of a set to itself
    within about 1e-8 (trace) d of 0. It is NaN if a moment is not finite, so that a search can drop
    such a candidate. Raises ValueError if the dimensions differ or a set has fewer than 2 samples.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f'features of {len(a.mean)} and of {len(b.mean)} numbers')
    # The set with fewer samples comes first, as its covariance, of lower rank, is the one decomposed.
    # The bytes make the order unique between sets of equal size.
    a, b = sorted((a, b), key=lambda m: (m.count, m.scatter.tobytes()))
    cov_a, cov_b = covariance(a), covariance(b)
    if not all(np.isfinite(array).all() for array in (a.mean, b.mean, cov_a, cov_b)):
        return Frechet(float('nan'), float('nan'), 0)
    distance, eigenvalues = _compare(a, cov_a, _root(cov_a), b, cov_b)
    known = eigenvalues[eigenvalues > eigenvalues.max(initial=0) * len(a.mean) * EPS]
    condition = float(known[-1] / known[0]) if known.size else float('nan')
    return Frechet(distance, condition, known.size)


class Slope(NamedTuple):
    """A Fréchet distance, and its derivatives by the mean [d] and the covariance [d, d] of one set."""

    distance: float
    mean: np.ndarray
    covariance: np.ndarray  # symmetric


class Frechets(NamedTuple):
    """Fréchet distances of sets b to one set a, whose root R (C_a = R R^T) is computed once.

    Each is `frechet_distance(a, b)` apart from rounding, and NaN if a moment of b is not finite.
    """

    a: Moments
    covariance: np.ndarray  # C_a
    root: np.ndarray  # R

    def distance(self, b: Moments) -> float:
        """Returns the distance of b."""
        cov_b = covariance(b)
        if not (np.isfinite(b.mean).all() and np.isfinite(cov_b).all()):
            return float('nan')
        return _compare(self.a, self.covariance, self.root, b, cov_b)[0]

    def slope(self, b: Moments) -> Slope:
        """Returns the distance of b with its derivatives by the moments of b.

            d/dm_b = 2 (m_b - m_a),   d/dC_b = I - R (R^T C_b R)^{-1/2} R^T

        as d tr A^{1/2} = tr(A^{-1/2} dA) / 2. (Mathiasen & Hvilshøj, arXiv 2009.14075, differentiate
        a Fréchet distance; the closed form by eigenvectors is ours.) An eigenvalue of R^T C_b R that
        is rounding error (see `Frechet`) is left out of the inverse root, so that singular covariances
        are legal. All three are NaN if a moment of b is not finite.

        It is computed in float64 on the host. In float32, whose rounding hides every direction with
        less than about 3e-4 of the largest variance, the derivative by the covariance points elsewhere:
        for 512 features whose variances fall as i^-2, its cosine with the exact one, in the units of
        the features, was 0.74 at best.
        """
        cov_b = covariance(b)
        if not (np.isfinite(b.mean).all() and np.isfinite(cov_b).all()):
            return Slope(float('nan'), np.full_like(b.mean, np.nan), np.full_like(cov_b, np.nan))
        eigenvalues, vectors = np.linalg.eigh(self.root.T @ cov_b @ self.root)
        known = eigenvalues > eigenvalues.max(initial=0) * len(b.mean) * EPS
        turned = (self.root @ vectors[:, known]) * eigenvalues[known][None] ** -0.25
        return Slope(
            distance=_distance(self.a, self.covariance, b, cov_b, eigenvalues),
            mean=2 * (b.mean - self.a.mean),
            covariance=np.eye(len(b.mean)) - turned @ turned.T,
        )


def distances_to(a: Moments) -> Frechets:
    """Returns the Fréchet distances to the set a."""
    cov_a = covariance(a)
    return Frechets(a, cov_a, _root(cov_a))


def _root(cov: np.ndarray) -> np.ndarray:
    """Returns R with R R^T = cov, without the directions in which cov is rounding error."""
    values, vectors = np.linalg.eigh(cov)
    kept = values > values[-1] * len(values) * EPS
    return vectors[:, kept] * np.sqrt(values[kept])[None]


def _compare(
    a: Moments, cov_a: np.ndarray, root: np.ndarray, b: Moments, cov_b: np.ndarray
) -> tuple[float, np.ndarray]:
    """Returns the distance, at least 0, and the eigenvalues of R^T C_b R in ascending order."""
    eigenvalues = np.linalg.eigvalsh(root.T @ cov_b @ root)
    return _distance(a, cov_a, b, cov_b, eigenvalues), eigenvalues


def _distance(
    a: Moments, cov_a: np.ndarray, b: Moments, cov_b: np.ndarray, eigenvalues: np.ndarray
) -> float:
    """Returns the distance, at least 0, from the eigenvalues of R^T C_b R."""
    overlap = np.sqrt(np.maximum(eigenvalues, 0)).sum()
    distance = np.sum((a.mean - b.mean) ** 2) + np.trace(cov_a) + np.trace(cov_b) - 2 * overlap
    return max(float(distance), 0.0)
