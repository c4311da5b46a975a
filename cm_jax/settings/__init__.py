"""All settings of training runs and of searches: a frozen dataclass for each section of a config.

A config is a nested mapping: what a file of configs/ returns, and what `config.json` and `search.json`
of a run folder hold. `parse_run` turns the config of a training run into `RunSettings`, and
`parse_search` that of a search into `SearchSettings`. The commands do so once, when they start, and all
code below them takes these dataclasses and never sees the config.

There are two kinds of sections:

* A section that configures the program itself, such as `train` or `trajectory`, is a dataclass, in
  run.py or search.py. The comment above a field says what it means and its unit, and its annotation
  which values are legal (cm_jax.bounds).
* A section that describes a part with many variants, such as `model` or `objective`, stays a mapping.
  It holds the keyword arguments of the function that builds the part, which its comment names. They
  are checked by that function's annotations when the part is built, and its docstring explains them.

A key that a config leaves out has the default that stands in its dataclass. So a run folder opens
although it was written before a key existed. A key that is not known is an error, which lists the
legal ones.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar, get_type_hints

from cm_jax.errors import UserError, build_from, check_name, check_value
from cm_jax.settings.run import (
    Evaluation,
    Loop,
    Pictures,
    RunSettings,
    Sampling,
    Seed,
    Trajectory,
    WeightsOf,
)
from cm_jax.settings.search import Basis, Budget, Controls, SearchSettings, earlier_search

__all__ = [
    'Basis',
    'Budget',
    'Controls',
    'Evaluation',
    'Loop',
    'Pictures',
    'RunSettings',
    'Sampling',
    'SearchSettings',
    'Seed',
    'Trajectory',
    'WeightsOf',
    'earlier_search',
    'parse_run',
    'parse_search',
]

RUN = 'a training run, such as configs/digits_ect.py'
SEARCH = 'a search, such as configs/digits_ect_lcsc.py'
Settings = TypeVar('Settings', RunSettings, SearchSettings)


def parse_run(config: Mapping[str, Any]) -> RunSettings:
    """Returns the settings of a training run from its config.

    Raises UserError, naming the key, if a key is unknown or the value of a section's key is illegal.
    """
    return _parse(config, RunSettings)


def parse_search(config: Mapping[str, Any]) -> SearchSettings:
    """Returns the settings of a search from its config.

    Raises UserError, naming the key, if a key is unknown or the value of a section's key is illegal.
    """
    return _parse(config, SearchSettings)


def _parse(config: Mapping[str, Any], settings: type[Settings]) -> Settings:
    """Returns `settings` with the values of the config, each section made into its dataclass."""
    hints, defaults, values = get_type_hints(settings, include_extras=True), settings(), {}
    _check_kind(config, settings)
    for name, value in config.items():
        check_name(f'key config.{name}', name, hints)
        default = getattr(defaults, name)
        is_dataclass = dataclasses.is_dataclass(default)
        if (is_dataclass or isinstance(default, Mapping)) and not isinstance(value, Mapping):
            raise UserError(f'config.{name} is a section of keys with values, got {value!r}')
        if is_dataclass:
            values[name] = build_from(name, hints[name], value)
        elif isinstance(value, Mapping):
            values[name] = dict(value)
        else:
            values[name] = check_value(f'config.{name}', hints[name], value)
    return settings(**values)


def _check_kind(config: Mapping[str, Any], settings: type[Settings]) -> None:
    """Raises UserError if the config is one of the other kind: of a search, or of a training run."""
    run, search = (
        {field.name for field in dataclasses.fields(kind)} for kind in (RunSettings, SearchSettings)
    )
    own, other, text, other_text = run, search, RUN, SEARCH
    if settings is SearchSettings:
        own, other, text, other_text = search, run, SEARCH, RUN
    if (foreign := sorted(config.keys() - own)) and config.keys() <= other:
        raise UserError(
            f'config.{foreign[0]} is a key of the config of {other_text}; here one of {text}, is needed'
        )
