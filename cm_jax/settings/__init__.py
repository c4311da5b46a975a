"""All settings of training runs and of searches: a frozen dataclass for each section of a config.

A config is a nested mapping: what a file of configs/ returns, and what `config.json` and `search.json`
of a run folder hold. `parse_run` turns the config of a training run into `RunSettings`, and
`parse_search` that of a search into `SearchSettings`. The commands do so once, when they start, and all
code below them takes these dataclasses and never sees the config.

There are two kinds of sections:

* A section that configures the program itself, such as `train` or `trajectory`, is a dataclass, in
  run.py or search.py. The comment above a field says what it means, its unit and its legal range.
* A section that describes a part with many variants, such as `model` or `objective`, stays a mapping.
  It holds the keyword arguments of the function that builds the part, which its comment names. That
  function checks them, and its docstring explains them.

A key that a config leaves out has the default that stands in its dataclass. So a run folder opens
although it was written before a key existed. A key that is not known is an error, which lists the
legal ones.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from cm_jax.errors import UserError, build_from, check_name
from cm_jax.settings.run import (
    MAX_SEED,
    Evaluation,
    Loop,
    RunSettings,
    Sampling,
    Trajectory,
    WeightsOf,
    check_numbers,
)
from cm_jax.settings.search import Basis, Budget, Controls, SearchSettings, earlier_search

__all__ = [
    'MAX_SEED',
    'Basis',
    'Budget',
    'Controls',
    'Evaluation',
    'Loop',
    'RunSettings',
    'Sampling',
    'SearchSettings',
    'Trajectory',
    'WeightsOf',
    'check_numbers',
    'earlier_search',
    'parse_run',
    'parse_search',
]

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
    fields = dataclasses.fields(settings)
    sections = {
        field.name: field.type
        for field in fields
        if isinstance(field.type, type) and dataclasses.is_dataclass(field.type)
    }
    defaults, values = settings(), {}
    for name, value in config.items():
        check_name(f'key config.{name}', name, [field.name for field in fields])
        is_section = name in sections or isinstance(getattr(defaults, name), Mapping)
        if is_section and not isinstance(value, Mapping):
            raise UserError(f'config.{name} is a section of keys with values, got {value!r}')
        if name in sections:
            section = {key: _as_tuple(entry) for key, entry in value.items()}
            values[name] = build_from(name, sections[name], section)
        elif isinstance(value, Mapping):
            values[name] = dict(value)
        else:
            values[name] = _as_tuple(value)
    return settings(**values)


def _as_tuple(value: Any) -> Any:
    """Returns a list as a tuple, and anything else as it is: JSON turns tuples into lists."""
    return tuple(value) if isinstance(value, list) else value
