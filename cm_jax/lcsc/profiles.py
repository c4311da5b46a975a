"""Where a search starts: the last checkpoint, a grid of EMA profiles and the uniform average.

A candidate of one group is K coefficients, checkpoint by checkpoint, oldest first, that sum to one;
negative entries are legal. In the paper's differential basis the weights are
theta_1 + sum_{i>1} a_i (theta_i - theta_1), so a_2 .. a_K are free and a_1 takes up the rest.
"""

from collections.abc import Sequence
from typing import Annotated, NamedTuple

import numpy as np

from cm_jax.bounds import Interval
from cm_jax.core.ema import coefficients as ema_coefficients
from cm_jax.lcsc.identity import EMA_STAR, LAST, UNIFORM, Identity

Population = Annotated[int, Interval('[1, 65536]')]  # candidates of a generation


def default_ema_rates(k: int) -> tuple[float, ...]:
    """Returns eight rates whose averages reach back over 2 to all K checkpoints.

    The lengths over which they reach back are evenly spaced in the logarithm.
    """
    reach = np.geomspace(2, max(k, 2), 8)
    return tuple(float(rate) for rate in 1 - 1 / reach)


class Profile(NamedTuple):
    """A candidate [K] that a search starts from, of one group of weights."""

    identity: Identity
    coefficients: np.ndarray


def starting_profiles(k: int, rates: Sequence[float]) -> list[Profile]:
    """Returns the candidates that a search starts from: last checkpoint, EMA profiles, uniform."""
    emas = [
        Profile(Identity(EMA_STAR, f'{EMA_STAR} {rate:.4g}'), ema_coefficients(k, rate))
        for rate in rates
    ]
    return [
        Profile(Identity(LAST, LAST), np.eye(k)[-1]),
        *emas,
        Profile(Identity(UNIFORM, UNIFORM), np.full(k, 1 / k)),
    ]


def stacked_profiles(k: int, groups: int, rates: Sequence[float]) -> np.ndarray:
    """Returns the starting profiles as candidates [P, G, K], all groups of a candidate alike."""
    rows = np.stack([profile.coefficients for profile in starting_profiles(k, rates)])
    return np.repeat(rows[:, None], groups, axis=1)


def plane(k: int) -> np.ndarray:
    """Returns an orthonormal basis [K-1, K] of the coefficients that sum to 0 (Helmert's).

    Steps that are alike in all directions of it are alike in all checkpoints, where steps in
    a_2 .. a_K would leave a_1 the sum of them.
    """
    i, j = np.arange(1, k)[:, None], np.arange(k)[None]
    rows = np.where(j < i, 1.0, np.where(j == i, -1.0 * i, 0.0))
    return rows / np.sqrt(i * (i + 1.0))


def per_entry(scale: float, k: int) -> float:
    """Returns the standard deviation of a coefficient's step: scale sqrt(20 / K)."""
    return scale * float(np.sqrt(20 / k))
