"""Configs as ConfigDicts: what the files in configs/ start from, and how two configs differ."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from cm_jax.settings import RunSettings, SearchSettings


def base_config() -> ConfigDict:
    """Returns the config of a training run with the defaults of `settings.RunSettings`.

    A file in configs/ starts from this and sets what is its own; `model`, `objective` and `dataset`
    take further keys, those of the network, the objective and the data source that they name; so does
    `prior`.
    """
    return _to_config(RunSettings())


def search_config() -> ConfigDict:
    """Returns the config of a search with the defaults of `settings.SearchSettings`."""
    return _to_config(SearchSettings())


def to_plain(config: ConfigDict) -> dict[str, Any]:
    """Returns a config as plain JSON values (tuples become lists)."""
    return json.loads(json.dumps(config.to_dict()))


def flatten(config: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    """Returns {'a.b': 1} for {'a': {'b': 1}}."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f'{prefix}{key}.')
        else:
            flat[prefix + key] = value
    return flat


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Returns one text for each key that differs: 'batch_size: 64 there, 128 here'."""
    old, new = (json.loads(json.dumps(flatten(config))) for config in (old, new))
    absent = 'absent'
    return [
        f'{key}: {old.get(key, absent)!r} there, {new.get(key, absent)!r} here'
        for key in sorted(old.keys() | new.keys())
        if old.get(key, absent) != new.get(key, absent)
    ]


def _to_config(settings: Any) -> ConfigDict:
    """The fields of a dataclass as a ConfigDict; a None becomes a placeholder of a whole number."""
    config = ConfigDict()
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            value = _to_config(value)
        elif isinstance(value, Mapping):
            value = ConfigDict(dict(value))
        config[field.name] = placeholder(int) if value is None else value
    return config
