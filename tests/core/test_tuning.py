"""The search for noise levels, on functions whose minimum is known."""

import itertools
import math

import numpy as np
import pytest

from cm_jax.core import tuning
from cm_jax.errors import UserError

T_MIN, T_MAX = 0.002, 80.0


def test_golden_section_comes_as_near_as_its_evaluations_allow():
    """Also where the minimum is beyond an end: then the end is the place of the lowest value."""
    low, high = -6.0, 5.0
    shapes = {
        '|d|': abs,
        'd^2': lambda d: d**2,
        '|d|^0.3': lambda d: abs(d) ** 0.3,
        'steeper on the right': lambda d: 3 * d if d > 0 else math.expm1(-d),
    }
    bests, budgets = (-5.9, -2.0, 0.31, 4.2, -7.0, 9.0), (2, 3, 7, 15)
    for case in itertools.product(shapes, bests, budgets):
        name, best, budget = case
        asked = []

        def f(x, asked=asked, shape=shapes[name], best=best):
            asked.append(x)
            return shape(x - best)

        tries = tuning.golden_section(f, low, high, budget, 0.0)
        assert [x for x, _ in tries] == asked and len(tries) == budget, case
        assert all(low < x < high for x in asked) and len(set(asked)) == budget, case
        place = min(tries, key=lambda one: one[1])[0]
        nearest = min(max(best, low), high)
        assert abs(place - nearest) <= (high - low) * tuning.GOLDEN**budget * (1 + 1e-9), case


def test_golden_section_stops_at_its_tolerance():
    tries = tuning.golden_section(lambda x: (x - 1) ** 2, 0.0, 3.0, 1000, 0.01)
    assert len(tries) == 2 + math.ceil(math.log(0.01 / 3) / math.log(tuning.GOLDEN))
    assert abs(min(tries, key=lambda one: one[1])[0] - 1) < 0.01


@pytest.mark.parametrize('bad', [math.nan, math.inf])
def test_what_is_not_finite_is_avoided(bad):
    tries = tuning.golden_section(lambda x: bad if x > 2 else (x - 1) ** 2, 0.0, 10.0, 20, 0.0)
    found = tuning.lowest([tuning.Try((x,), value) for x, value in tries])
    assert abs(found.levels[0] - 1) < 1e-2
    with pytest.raises(UserError, match='finite'):
        tuning.lowest([tuning.Try((80.0, 1.0), bad)])


def test_greedy_levels_finds_each_level_below_the_last():
    """A score whose best next level is a third of the one above, in ln t, whatever came before."""
    asked = []

    def score(levels):
        asked.append(levels)
        return sum(math.log(3 * t / above) ** 2 for above, t in itertools.pairwise(levels))

    tries = tuning.greedy_levels(score, T_MIN, T_MAX, 4, 15)
    assert [one.levels for one in tries] == asked and len(asked) == 45
    best = [tuning.lowest([one for one in tries if len(one.levels) == n]) for n in (2, 3, 4)]
    assert best[0].levels == best[1].levels[:2] and best[1].levels == best[2].levels[:3]
    np.testing.assert_allclose(best[2].levels, [80, 80 / 3, 80 / 9, 80 / 27], rtol=0.05)


@pytest.mark.parametrize('up', [1, -1])
def test_levels_descend_strictly_within_the_process_even_at_an_end(up):
    """A score that falls towards an end: tries crowd there, and stay legal with 4 digits."""
    tries = tuning.greedy_levels(lambda levels: -up * levels[-1], T_MIN, T_MAX, 2, 100)
    assert len(tries) < 30
    for one in tries:
        assert one.levels[0] == T_MAX > one.levels[1] > T_MIN
    assert len({one.levels for one in tries}) == len(tries)


def test_no_room_for_another_level_is_said():
    with pytest.raises(UserError, match=r'no room .* t_min = 0\.002 .* ask for fewer'):
        tuning.greedy_levels(lambda levels: levels[-1], T_MIN, T_MAX, 3, 100)
