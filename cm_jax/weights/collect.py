"""What was unpickled -> tensors and plain values under dotted names."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from cm_jax.data.readers.inert import NumpyArray
from cm_jax.weights.pickles import Module, Tensor

MAX_DEPTH = 100
MAX_CONTAINERS = 1_000_000  # a pickle can refer to one container many times
PLAIN = (str, bool, int, float)


class _Found:
    """What has been found so far."""

    def __init__(self):
        self.tensors, self.metadata, self.containers = {}, {}, 0

    def add(self, name: str, node: Any, depth: int, in_module: bool) -> None:
        """Adds all that is in `node`. Raises ValueError if there is no end to it."""
        self.containers += 1
        if depth > MAX_DEPTH or self.containers > MAX_CONTAINERS:
            raise ValueError('containers within containers without end')
        if isinstance(node, (Tensor, NumpyArray)):
            self.tensors[name] = node.value()
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
    """(tensors, metadata) of an unpickled object, under dotted names.

    A module's parameters and buffers have their state-dict names behind the module's own name.
    Metadata are the plain values, and of an outermost module `class_name` and `init_kwargs`.
    Raises ValueError on a tensor that reaches outside its storage.
    """
    found = _Found()
    found.add('', root, 0, False)
    return found.tensors, found.metadata


def _join(name: str, key: Any) -> str:
    return f'{name}.{key}' if name else str(key)


def _is_plain_list(node: Any) -> bool:
    return isinstance(node, (list, tuple)) and all(isinstance(item, PLAIN) for item in node)
