"""Searching noise levels: golden-section search on a line, and level after level by it."""

import math
from collections.abc import Callable
from typing import NamedTuple

from cm_jax.errors import UserError

GOLDEN = (math.sqrt(5) - 1) / 2
TOLERANCE = 0.01  # of ln t: levels closer than one percent are not told apart


class Try(NamedTuple):
    """Levels that were tried, and the score that they had; lower is better."""

    levels: tuple[float, ...]
    score: float


def golden_section(
    f: Callable[[float], float], low: float, high: float, budget: int, tolerance: float
) -> list[tuple[float, float]]:
    """Every (x, f(x)) of golden-section search for the lowest f in [low, high], in order.

    At least 2 and at most `budget` evaluations, none at the ends; it stops where the bracket is
    narrower than `tolerance`. Of a unimodal f, n evaluations come within (high - low) GOLDEN^n of the
    place of its minimum. A value that is not finite counts as the highest there is.
    """
    tries: list[tuple[float, float]] = []

    def value(x: float) -> float:
        tries.append((x, f(x)))
        return tries[-1][1] if math.isfinite(tries[-1][1]) else math.inf

    left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    at_left, at_right = value(left), value(right)
    while len(tries) < budget and high - low > tolerance:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - GOLDEN * (high - low)
            at_left = value(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + GOLDEN * (high - low)
            at_right = value(right)
    return tries


def lowest(tries: list[Try]) -> Try:
    """The try with the lowest finite score. Raises UserError if there is none."""
    finite = [one for one in tries if math.isfinite(one.score)]
    if not finite:
        raise UserError('no levels that were tried have a finite score')
    return min(finite, key=lambda one: one.score)


def greedy_levels(
    score: Callable[[tuple[float, ...]], float], t_min: float, t_max: float, count: int, budget: int
) -> list[Try]:
    """Every try of a search for `count` levels of multistep sampling, t_max > t_2 > ... > t_count.

    Greedy (arXiv 2303.01469, section 6.1): t_2 is searched for two levels, then t_3 below it for
    three, and so on, each with `budget` evaluations of `score`, by golden-section search over ln t
    between t_min and the level above. Levels have 4 significant digits. The winner is the `lowest`
    of those tries that have `count` levels. Raises UserError if no finite score or no room is left.
    """
    levels: tuple[float, ...] = (t_max,)
    tries: list[Try] = []
    for _ in range(count - 1):
        low, high = math.log(t_min), math.log(levels[-1])
        if high - low < 2 * TOLERANCE:
            raise UserError(
                f'no room for another level between t_min = {t_min:g} and {levels[-1]:g}, the last of '
                f'{len(levels)} levels: ask for fewer'
            )
        found: list[Try] = []

        def at(x: float, above: tuple = levels, found: list = found) -> float:
            tried = (*above, float(f'{math.exp(x):.4g}'))
            found.append(Try(tried, score(tried)))
            return found[-1].score

        golden_section(at, low, high, budget, TOLERANCE)
        tries += found
        levels = lowest(found).levels
    return tries
