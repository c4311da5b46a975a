"""Collects the tensors and plain values of what a file holds under dotted names."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from cm_jax.data.readers.inert import NumpyArray
from cm_jax.weights.pickles import Module, Tensor

MAX_DEPTH = 100
MAX_CONTAINERS = 1_000_000  # a limit, as a pickle can refer to one container many times
PLAIN = (str, bool, int, float)


class _Collector:
    """Walks through an object and keeps the tensors and plain values that it meets."""

    def __init__(self) -> None:
        self.tensors: dict[str, np.ndarray] = {}
        self.metadata: dict[str, Any] = {}
        self.containers = 0

    def add(self, name: str, node: Any, depth: int, in_module: bool) -> None:
        """Adds the content of `node` under `name`.

        Raises ValueError if the containers are nested too deep or are too many.
        """
        self.containers += 1
        if depth > MAX_DEPTH or self.containers > MAX_CONTAINERS:
            raise ValueError('its containers are nested or repeated without end')
        if isinstance(node, (Tensor, NumpyArray)):
            self.tensors[name] = node.value()
        elif isinstance(node, np.ndarray):
            self.tensors[name] = node
        elif isinstance(node, Module):
            self._add_module(name, node, depth, in_module)
        elif isinstance(node, PLAIN) or _is_plain_list(node):
            self.metadata[name] = node
        elif isinstance(node, (Mapping, list, tuple)):
            items = node.items() if isinstance(node, Mapping) else enumerate(node)
            for key, child in items:
                self.add(_join(name, key), child, depth + 1, in_module)

    def _add_module(self, name: str, module: Module, depth: int, in_module: bool) -> None:
        if not in_module:
            self.metadata[_join(name, 'class_name')] = module.class_name
            settings = module.state.get('_init_kwargs')
            if isinstance(settings, Mapping):
                for key, value in settings.items():
                    if isinstance(value, PLAIN) or _is_plain_list(value):
                        self.metadata[_join(name, f'init_kwargs.{key}')] = value
        for group in ('_parameters', '_buffers', '_modules'):
            children = module.state.get(group)
            for key, child in children.items() if isinstance(children, Mapping) else ():
                if isinstance(child, (Tensor, NumpyArray, Module)):
                    self.add(_join(name, key), child, depth + 1, True)


def collect(root: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Returns (tensors, metadata) of the object that a file holds, both under dotted names.

    The parameters and buffers of a module have the module's name, then their name in its state dict.
    The metadata are the plain values, and the `class_name` and `init_kwargs` of outermost modules.
    Raises ValueError if a tensor reaches outside its storage, or containers are nested without end.
    """
    collector = _Collector()
    collector.add('', root, 0, False)
    return collector.tensors, collector.metadata


def _join(name: str, key: Any) -> str:
    return f'{name}.{key}' if name else str(key)


def _is_plain_list(node: Any) -> bool:
    return isinstance(node, (list, tuple)) and all(isinstance(item, PLAIN) for item in node)
