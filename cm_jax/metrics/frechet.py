"""The Fréchet distance between two sets of features, each taken for a Gaussian."""

import numpy as np

from cm_jax.metrics.moments import Moments, covariance


def frechet_distance(a: Moments, b: Moments) -> float:
    """The squared 2-Wasserstein distance of N(m_a, C_a) and N(m_b, C_b).

        |m_a - m_b|^2 + tr C_a + tr C_b - 2 tr (C_a C_b)^{1/2}

    Heusel et al. 2017 (arXiv 1706.08500), eq. 6. With C_a = R R^T (R = V diag(l)^{1/2} from an
    eigendecomposition, without the directions where l is rounding) the last trace is that of
    (R^T C_b R)^{1/2}, a symmetric matrix: singular covariances are nothing special. In float64.

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
        return float('nan')
    values, vectors = np.linalg.eigh(cov_a)
    kept = values > values[-1] * len(values) * np.finfo(np.float64).eps
    root = vectors[:, kept] * np.sqrt(values[kept])[None]
    squares = np.linalg.eigvalsh(root.T @ cov_b @ root)
    overlap = np.sqrt(np.maximum(squares, 0)).sum()
    distance = np.sum((a.mean - b.mean) ** 2) + np.trace(cov_a) + np.trace(cov_b) - 2 * overlap
    return max(float(distance), 0.0)
