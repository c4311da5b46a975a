"""The kernel distance between two sets of features (KID, if they are Inception's).

    MMD^2 = mean_{i != j} k(a_i, a_j) + mean_{i != j} k(b_i, b_j) - 2 mean_{i, j} k(a_i, b_j),
    k(x, y) = (x . y / d + 1)^3

Binkowski et al. 2018, "Demystifying MMD GANs" (arXiv 1801.01401): unbiased at any number of
samples, where a Fréchet distance falls with it, so it can be negative. It is the mean over random
subsets, whose spread says how well it is known. All in float64 on the host.
"""

from typing import NamedTuple

import numpy as np


class KernelDistance(NamedTuple):
    """Mean and standard deviation of MMD^2 over subsets; the std of one subset is NaN."""

    mean: float
    std: float


def mmd_squared(a: np.ndarray, b: np.ndarray) -> float:
    """The unbiased estimate above, of a [n, d] and b [m, d], n and m >= 2.

    Raises ValueError on other shapes. NaN if a feature is not finite.
    """
    _check(a, b, 2)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return float('nan')
    a, b = (np.asarray(x, np.float64) for x in (a, b))
    return _within(a) + _within(b) - 2 * float(_kernel(a, b).mean())


def kernel_distance(
    a: np.ndarray, b: np.ndarray, *, subsets: int = 100, size: int = 1000, seed: int = 0
) -> KernelDistance:
    """`mmd_squared` of random subsets of `size` features of each set, drawn without replacement.

    a [n, d], b [m, d]. Raises ValueError if a set is smaller than `size`, or `size` below 2.
    """
    if subsets < 1 or size < 2:
        raise ValueError(f'{subsets} subsets of {size} features; legal: >= 1 of >= 2')
    _check(a, b, size)
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(subsets):
        parts = (x[rng.choice(len(x), size, replace=False)] for x in (a, b))
        found.append(mmd_squared(*parts))
    std = float(np.std(found, ddof=1)) if subsets > 1 else float('nan')
    return KernelDistance(float(np.mean(found)), std)


def _kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a @ b.T / a.shape[1] + 1) ** 3


def _within(a: np.ndarray) -> float:
    """The mean of the kernel over different pairs."""
    kernel = _kernel(a, a)
    return float((kernel.sum() - np.trace(kernel)) / (len(a) * (len(a) - 1)))


def _check(a: np.ndarray, b: np.ndarray, least: int) -> None:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f'features have shapes {a.shape} and {b.shape}, not [n, d] and [m, d]')
    if min(len(a), len(b)) < least:
        raise ValueError(f'sets of {len(a)} and {len(b)} features; each needs at least {least}')
