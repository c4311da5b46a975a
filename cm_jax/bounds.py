"""The legal values of a setting: written once, in its annotation, and checked by it.

    log_every: Count = 50
    ema_rates: tuple[Rate, ...] = (0.999,)
    rho: Positive | None = None
    order: Annotated[int, Interval('[1, 3]')]

`errors.build_from` checks each value of a config's section by the annotation of the field or parameter
that it is for, and the commands their flags (`cli.number_flag`).
"""

import collections.abc
import contextlib
import dataclasses
import numbers
import pathlib
import types
from typing import Annotated, Any, Union, get_args, get_origin


@dataclasses.dataclass(frozen=True)
class Interval:
    """The numbers between two finite ends, written as in mathematics: '[0, 1)' has 0 and not 1.

    No interval has NaN or an infinity.
    """

    text: str

    @property
    def ends(self) -> tuple[float, float]:
        """The lower and the upper end."""
        low, high = self.text[1:-1].split(',')
        return float(low), float(high)

    def __contains__(self, number: float) -> bool:
        low, high = self.ends
        is_above = low <= number if self.text.startswith('[') else low < number
        is_below = number <= high if self.text.endswith(']') else number < high
        return is_above and is_below


LARGEST = 2**31 - 1  # of whole numbers: JAX counts in int32
# Whole numbers.
Natural = Annotated[int, Interval(f'[0, {LARGEST}]')]
Count = Annotated[int, Interval(f'[1, {LARGEST}]')]
Samples = Annotated[int, Interval(f'[2, {LARGEST}]')]  # for a score: one image has no covariance
BatchSize = Annotated[int, Interval('[1, 1048576]')]  # of images that are computed together
Pixels = Annotated[int, Interval('[1, 65536]')]  # of a side of an image
# Numbers, which float32 holds.
Real = Annotated[float, Interval('[-1e30, 1e30]')]
NonNegative = Annotated[float, Interval('[0, 1e30]')]
Positive = Annotated[float, Interval('(0, 1e30]')]
Rate = Annotated[float, Interval('[0, 1)')]
Share = Annotated[float, Interval('[0, 1]')]


def fit(hint: Any, value: Any) -> Any:
    """Returns a value as the annotation `hint` has it. Raises ValueError if it is not legal there.

    A list becomes a tuple, and a number without a fraction a whole number where one is asked for: 2e4
    is 20000. An annotation that says nothing of plain values, such as that of a function, takes all.
    """
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        number = fit(parts[0], value)
        if not all(number in interval for interval in parts[1:]):
            raise ValueError
        return number
    if origin in (Union, types.UnionType):
        for option in parts:
            with contextlib.suppress(ValueError):
                return fit(option, value)
        raise ValueError
    if origin in (tuple, collections.abc.Sequence):
        if not isinstance(value, list | tuple):
            raise ValueError
        return tuple(fit(parts[0], entry) for entry in value)
    if hint in (int, float):
        return _number(hint, value)
    if isinstance(hint, type) and hint is not Any and not isinstance(value, hint):
        raise ValueError
    return value


def described(hint: Any) -> str:
    """Returns the legal values of an annotation in words, as 'a number in [0, 1), or None'."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return ' '.join([described(parts[0]), *(f'in {interval.text}' for interval in parts[1:])])
    if origin in (Union, types.UnionType):
        return ', or '.join(map(described, parts))
    if origin in (tuple, collections.abc.Sequence):
        return f'a list with each entry {described(parts[0])}'
    words: dict[Any, str] = {
        int: 'a whole number',
        float: 'a number',
        bool: 'True or False',
        str: 'text',
        pathlib.Path: 'a path',
    }
    return words.get(hint, 'None' if hint is types.NoneType else getattr(hint, '__name__', 'any'))


def _number(kind: type, value: Any) -> Any:
    """Returns a number, as a whole one if `kind` is int. Raises ValueError if it is none."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ValueError
    if kind is float or isinstance(value, numbers.Integral):
        return value
    whole = float(value)
    if not whole.is_integer():
        raise ValueError
    return int(whole)
