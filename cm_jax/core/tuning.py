"""Search for the noise levels of multistep sampling: one level after another, by golden section."""

import math
from collections.abc import Callable
from typing import NamedTuple

from cm_jax.errors import UserError

GOLDEN = (math.sqrt(5) - 1) / 2
TOLERANCE = 0.01  # in ln t: the search of a level ends where its bracket is narrower than 1 %


class Try(NamedTuple):
    """Noise levels that were tried, and their score; a lower score is better."""

    levels: tuple[float, ...]
    score: float


def golden_section(
    f: Callable[[float], float], low: float, high: float, budget: int, tolerance: float
) -> list[tuple[float, float]]:
    """Returns every (x, f(x)) of a golden-section search for the minimum of f in [low, high].

    They are in the order of their evaluation. There are at least 2 and at most `budget` evaluations,
    none of them at the ends of the interval; the search stops when its bracket is narrower than
    `tolerance`. If f is unimodal, n evaluations come within (high - low) GOLDEN^n of the place of
    its minimum. A value that is not finite counts as higher than all others.
    """
    tries: list[tuple[float, float]] = []

    def evaluate(x: float) -> float:
        value = f(x)
        tries.append((x, value))
        return value if math.isfinite(value) else math.inf

    left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    at_left, at_right = evaluate(left), evaluate(right)
    while len(tries) < budget and high - low > tolerance:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - GOLDEN * (high - low)
            at_left = evaluate(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + GOLDEN * (high - low)
            at_right = evaluate(right)
    return tries


def lowest(tries: list[Try]) -> Try:
    """Returns the try with the lowest finite score. Raises UserError if no score is finite."""
    finite = [attempt for attempt in tries if math.isfinite(attempt.score)]
    if not finite:
        raise UserError('none of the levels that were tried has a finite score')
    return min(finite, key=lambda attempt: attempt.score)


def greedy_levels(
    score: Callable[[tuple[float, ...]], float], t_min: float, t_max: float, count: int, budget: int
) -> list[Try]:
    """Returns every try of a search for `count` levels of multistep sampling, in order.

    The levels are t_max > t_2 > ... > t_count, and the best of them are the `lowest` of the tries
    that have `count` levels. The search is greedy (arXiv 2303.01469, section 6.1). First it searches
    the t_2 with the lowest score of (t_max, t_2); then it keeps that t_2 and searches t_3 below it,
    and so on. Each level is searched by golden section over ln t, between t_min and the level above,
    with at most `budget` evaluations of `score`. Levels are rounded to 4 significant digits.

    Raises UserError if none of the tries for a level has a finite score, and if the last level is so
    near to t_min that there is no room for another.
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
        tries_of_level: list[Try] = []

        def score_at(
            log_t: float, above: tuple = levels, tries_of_level: list = tries_of_level
        ) -> float:
            tried = (*above, float(f'{math.exp(log_t):.4g}'))
            tries_of_level.append(Try(tried, score(tried)))
            return tries_of_level[-1].score

        golden_section(score_at, low, high, budget, TOLERANCE)
        tries += tries_of_level
        levels = lowest(tries_of_level).levels
    return tries
