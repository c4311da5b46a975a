"""Numbers that a user may get wrong, made from what the sections of a config declare."""

import functools
import importlib
import inspect
import math
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin, get_type_hints

from cm_jax import data, models, objectives
from cm_jax.bounds import BatchSize, Interval
from cm_jax.config import flatten
from cm_jax.core import process
from cm_jax.lcsc import ask_tell, evolution, gradient
from cm_jax.settings import RunSettings, SearchSettings
from cm_jax.training import optim
from cm_jax.weights import lpips

VALUES = (0, -1, math.nan, math.inf, -math.inf, 10**12, 1e300, 'word')
# The parameters that the program passes, and no config.
WIRED = ('image_shape', 'num_classes', 'net', 'process', 'teacher_denoise', 'prior', 'log_variance')


class Section(NamedTuple):
    """A section of a config, by its key; the name of its variant; and what is built from it."""

    key: str
    name: str
    factory: Callable
    wired: tuple[str, ...] = WIRED


class Number(NamedTuple):
    """A number of a section, or a list of them: its key and its annotation."""

    section: Section
    key: str
    hint: Any


def sections() -> list[Section]:
    """Every section that a config may have, in each of its variants; those with key '' are whole."""

    def module(name):
        return importlib.import_module(f'cm_jax.{name}')

    found = [
        Section('process', '', process.build),
        Section('optimizer', '', optim.make),
        Section('lpips', '', lpips.load),
        Section('evolution', '', evolution.Settings),
        Section('gradient', '', gradient.Settings),
        *(Section('model', name, module(f'models.{name}').build) for name in models.NETWORKS),
        *(
            Section('prior', name, module(f'models.{name}').build, (*WIRED, 'heads'))
            for name in models.PRIORS
        ),
        *(Section('objective', name, objectives.maker(name)) for name in objectives.names()),
        *(
            Section('dataset', name, module(f'data.sources.{name}').open_source)
            for name in data.source_names()
        ),
        *(Section('search', name, method.Settings) for name, method in ask_tell.METHODS.items()),
    ]
    for settings in (RunSettings, SearchSettings):
        found.append(Section('', settings.__name__, settings))
        for key, hint in get_type_hints(settings).items():
            if hasattr(hint, '__dataclass_fields__'):
                found.append(Section(key, settings.__name__, hint))
    return found


@functools.cache
def numbers() -> list[Number]:
    """Every number that a section may hold."""
    return [
        Number(section, key, hint)
        for section in sections()
        for key, hint in get_type_hints(section.factory, include_extras=True).items()
        if key in set(inspect.signature(section.factory).parameters) - set(section.wired)
        and any(kind in (int, float) for kind, _ in kinds(hint))
    ]


def kinds(hint: Any) -> Iterator[tuple[Any, tuple[Interval, ...]]]:
    """The plain types within an annotation, each with the intervals that it is annotated with."""
    if get_origin(hint) is Annotated:
        base, *intervals = get_args(hint)
        yield base, tuple(intervals)
    elif get_origin(hint) in (Union, types.UnionType, tuple, Sequence):
        for part in get_args(hint):
            yield from kinds(part)
    else:
        yield hint, ()


def is_list(hint: Any) -> bool:
    """Whether an annotation takes nothing but lists."""
    return get_origin(hint) in (tuple, Sequence)


def is_legal(hint: Any, value: float | str) -> bool:
    """Whether the intervals that an annotation declares hold a number."""
    if isinstance(value, str) or not math.isfinite(value):
        return False
    for kind, intervals in kinds(hint):
        if kind is float or (kind is int and value == math.floor(value)):
            (interval,) = intervals
            (low, high), text = interval.ends, interval.text
            closed = (value == low and text[0] == '[') or (value == high and text[-1] == ']')
            if low < value < high or closed:
                return True
    return False


def wrong_values(hint: Any) -> list[float | str]:
    """Those of VALUES that an annotation does not take."""
    return [value for value in VALUES if not is_legal(hint, value)]


def legal_values(hint: Any) -> list[float]:
    """The ends of an annotation's intervals, and those of VALUES, as far as they are legal."""
    ends = [kind(end) for kind, intervals in kinds(hint) for i in intervals for end in i.ends]
    return [value for value in dict.fromkeys((*ends, *VALUES)) if is_legal(hint, value)]


def config_slips(config: Mapping[str, Any], kind: str) -> list[tuple[str, float | str]]:
    """For each number of a config one option that sets it wrongly, and the value.

    `kind` is the name of the settings. The wrong values take turns.
    """
    found: list[tuple[str, float | str]] = []
    for key in flatten(config):
        section, _, name = key.rpartition('.')
        of = config[section] if section else {}
        variants = ('', kind, of.get('name'), of.get('method'), of.get('source'))
        hints = [
            number.hint
            for number in numbers()
            if number.key == name and number.section[:2] in [(section, v) for v in variants]
        ]
        if key == 'gradient.batch_size':
            hints = [BatchSize | None]
        for hint in hints[:1]:
            wrong = wrong_values(hint)
            value = wrong[len(found) % len(wrong)]
            found.append((f'--config.{key}={f"({value},)" if is_list(hint) else value}', value))
    return found
