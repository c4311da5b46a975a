"""Annotations say which values of a setting are legal: which they take, and how they are described."""

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple

import pytest

from cm_jax.bounds import Count, Interval, Natural, Positive, Rate, described, fit


def is_legal(hint, value):
    """Whether `fit` takes a value."""
    try:
        fit(hint, value)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(
    'text, inside, outside',
    [
        ('[0, 1)', (0, 0.5, 1 - 1e-12), (1, -1e-12, 10**400)),
        ('(0, 1]', (1, 1e-300), (0, -0.0, 1 + 1e-12)),
        ('(0, 1)', (0.5,), (0, 1)),
        ('[-1, 1]', (-1, 0, 1), (2, -2)),
        ('(0, 1e30]', (1e30, 5e-324), (2e30, 0)),
    ],
)
def test_an_interval_is_what_its_text_says_and_has_only_finite_numbers(text, inside, outside):
    interval = Interval(text)
    assert all(number in interval for number in inside)
    assert not any(number in interval for number in (*outside, math.nan, math.inf, -math.inf))


class Pair(NamedTuple):
    """A type that is no plain value."""

    one: int = 1


@pytest.mark.parametrize(
    'hint, legal, illegal',
    [
        (Count, (1, 2**31 - 1, 3.0), (0, 2**31, 1.5, True, '3', None, math.nan, math.inf)),
        (Natural | None, (0, None), (-1, 'none', (1,))),
        (Rate, (0, 0.999, 0.0), (1, -0.1, math.nan, '0.5', False)),
        (tuple[Rate, ...], ((), (0.5,), [0.5, 0.9]), ((0.5, 1), 0.5, '0.5', (math.nan,))),
        (Count | Sequence[Count], (5, (5, 6), [5]), ((5, 0), 0, '5')),
        (bool, (True, False), (1, 0, 'True', None)),
        (str, ('', 'x'), (1, None)),
        (str | Pair, ('x', Pair()), (1, (1,))),
        (tuple[str, ...], (('x',), ['x', 'y']), ('x', (1,))),
        (Any, (1, None, 'x', math.nan), ()),
        (Callable[[int], int], (1, None, len), ()),
        (Annotated[float, Interval('[0, 10]'), Interval('(5, 20]')], (6, 10), (5, 11)),
    ],
)
def test_an_annotation_takes_its_values_and_no_others(hint, legal, illegal):
    assert [value for value in legal if not is_legal(hint, value)] == []
    assert [value for value in illegal if is_legal(hint, value)] == []


def test_whole_numbers_and_lists_come_as_they_are_annotated():
    assert fit(Count, 2e4) == 20_000 and type(fit(Count, 2e4)) is int
    assert type(fit(Positive, 2)) is int  # a number is a number
    assert fit(Sequence[Count], [1.0, 2]) == (1, 2)
    assert fit(Count | Sequence[Count], [3]) == (3,)


def test_what_is_legal_is_described():
    for hint, words in (
        (Count, 'a whole number in [1, 2147483647]'),
        (Positive | None, 'a number in (0, 1e30], or None'),
        (tuple[Rate, ...], 'a list with each entry a number in [0, 1)'),
        (bool, 'True or False'),
        (str | Pair, 'text, or Pair'),
    ):
        assert described(hint) == words
