"""The kernel distance between two sets of features. With Inception's features it is called KID.

    MMD^2 = mean_{i != j} k(a_i, a_j) + mean_{i != j} k(b_i, b_j) - 2 mean_{i, j} k(a_i, b_j),
    k(x, y) = (x . y / d + 1)^3

Binkowski et al. 2018, "Demystifying MMD GANs" (arXiv 1801.01401). This estimate is unbiased for every
number of samples, whereas a Fréchet distance falls with that number; therefore it can be negative.
The kernel distance is the mean of MMD^2 over random subsets of the features, and their spread shows
how precise it is. Everything is computed in float64 on the host.
"""

from typing import NamedTuple

import numpy as np


class KernelDistance(NamedTuple):
    """Mean and standard deviation of MMD^2 over the subsets. With one subset `std` is NaN."""

    mean: float
    std: float


def mmd_squared(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the unbiased estimate of MMD^2 above for a [n, d] and b [m, d], with n and m >= 2.

    It is NaN if a feature is not finite. Raises ValueError on other shapes.
    """
    _check(a, b, 2)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return float('nan')
    a, b = (np.asarray(x, np.float64) for x in (a, b))
    return _within(a) + _within(b) - 2 * float(_kernel(a, b).mean())


def kernel_distance(
    a: np.ndarray, b: np.ndarray, *, subsets: int = 100, size: int = 1000, seed: int = 0
) -> KernelDistance:
    """Returns mean and spread of `mmd_squared` over random subsets of a [n, d] and b [m, d].

    Each subset has `size` features of each set, drawn without replacement. Raises ValueError if a set
    is smaller than `size`, if `size` is below 2, or if there are no subsets.
    """
    if subsets < 1 or size < 2:
        raise ValueError(f'{subsets} subsets of {size} features; legal: >= 1 of >= 2')
    _check(a, b, size)
    rng = np.random.default_rng(seed)
    estimates = []
    for _ in range(subsets):
        parts = (x[rng.choice(len(x), size, replace=False)] for x in (a, b))
        estimates.append(mmd_squared(*parts))
    std = float(np.std(estimates, ddof=1)) if subsets > 1 else float('nan')
    return KernelDistance(float(np.mean(estimates)), std)


def _kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns k(a_i, b_j) of all pairs, [n, m]."""
    return (a @ b.T / a.shape[1] + 1) ** 3


def _within(a: np.ndarray) -> float:
    """Returns the mean of k(a_i, a_j) over the pairs with i != j."""
    kernel = _kernel(a, a)
    return float((kernel.sum() - np.trace(kernel)) / (len(a) * (len(a) - 1)))


def _check(a: np.ndarray, b: np.ndarray, least: int) -> None:
    """Raises ValueError unless the shapes fit and both sets have at least `least` features."""
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f'features have shapes {a.shape} and {b.shape}, not [n, d] and [m, d]')
    if min(len(a), len(b)) < least:
        raise ValueError(f'sets of {len(a)} and {len(b)} features; each needs at least {least}')
