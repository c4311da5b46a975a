"""Configs: those that the files in configs/ start from, and the differences between two of them."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from cm_jax.settings import RunSettings, SearchSettings


def base_config() -> ConfigDict:
    """Returns the config of a training run with the defaults of `settings.RunSettings`.

    A file in configs/ starts from this config and changes what is its own. The sections `model`,
    `prior`, `objective` and `dataset` also take the keys of the network, the objective or the data
    source that they name.
    """
    return _to_config(RunSettings())


def search_config() -> ConfigDict:
    """Returns the config of a search with the defaults of `settings.SearchSettings`."""
    return _to_config(SearchSettings())


def to_plain(config: ConfigDict) -> dict[str, Any]:
    """Returns a config as plain JSON values (tuples become lists)."""
    return json.loads(json.dumps(config.to_dict()))


def flatten(config: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    """Returns nested mappings as one dict with dotted keys: {'a.b': 1} for {'a': {'b': 1}}."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f'{prefix}{key}.')
        else:
            flat[prefix + key] = value
    return flat


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Returns one text for each key that differs: 'batch_size: 64 there, 128 here'.

    `old` is what messages call "there", and `new` what they call "here". Values are compared as JSON
    holds them, so that a tuple and a list are equal. A key that one of them lacks is 'absent' in it.
    """
    there, here = (json.loads(json.dumps(flatten(config))) for config in (old, new))
    absent = 'absent'
    return [
        f'{key}: {there.get(key, absent)!r} there, {here.get(key, absent)!r} here'
        for key in sorted(there.keys() | here.keys())
        if there.get(key, absent) != here.get(key, absent)
    ]


def _to_config(settings: Any) -> ConfigDict:
    """Returns the fields of a dataclass as a ConfigDict, dataclasses among them as ConfigDicts too."""
    config = ConfigDict()
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            value = _to_config(value)
        elif isinstance(value, Mapping):
            value = ConfigDict({key: _settable(entry) for key, entry in value.items()})
        config[field.name] = _settable(value)
    return config


def _settable(value: Any) -> Any:
    """Returns a value as it stands in a config: for None, a placeholder of a whole number."""
    return placeholder(int) if value is None else value
