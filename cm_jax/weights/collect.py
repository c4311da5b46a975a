"""Collects the tensors and plain values of what a file holds under dotted names."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from cm_jax.data.readers.inert import NumpyArray
from cm_jax.errors import UserError, shown
from cm_jax.weights.pickles import Module, Tensor

MAX_DEPTH = 100
MAX_NAME = 1000  # characters
# A pickle can refer to one container many times, and each time its content gets other names. Everything
# that is met costs VISIT and the length of its name, a tensor TENSOR, a container its number of items.
MAX_COST = 50_000_000
VISIT, TENSOR = 50, 500
PLAIN = (str, bool, int, float)


class _Collector:
    """Walks through an object and keeps the tensors and plain values that it meets."""

    def __init__(self) -> None:
        self.tensors: dict[str, np.ndarray] = {}
        self.metadata: dict[str, Any] = {}
        self.cost = 0

    def add(self, name: str, node: Any, depth: int, in_module: bool) -> None:
        """Adds the content of `node` under `name`.

        Raises UserError if the containers are nested too deep, or what they hold is too much.
        """
        self._pay(VISIT + len(name), depth)
        if isinstance(node, (Mapping, list, tuple)):
            self._pay(len(node))
        if isinstance(node, (Tensor, NumpyArray)):
            self._pay(TENSOR)
            self.tensors[name] = node.value()
        elif isinstance(node, np.ndarray):
            self.tensors[name] = node
        elif isinstance(node, Module):
            self._add_module(name, node, depth, in_module)
        elif isinstance(node, PLAIN) or _is_plain_list(node):
            self.metadata[name] = node
        elif isinstance(node, (Mapping, list, tuple)):
            items = _items(node) if isinstance(node, Mapping) else enumerate(node)
            for key, child in items:
                self.add(_join(name, key), child, depth + 1, in_module)

    def _add_module(self, name: str, module: Module, depth: int, in_module: bool) -> None:
        if not in_module:
            self.metadata[_join(name, 'class_name')] = module.class_name
            settings = module.state.get('_init_kwargs')
            if isinstance(settings, Mapping):
                inner = _join(name, 'init_kwargs')
                self._pay(len(settings))
                for key, value in _items(settings):
                    if isinstance(value, PLAIN) or _is_plain_list(value):
                        self.add(_join(inner, key), value, depth + 1, in_module)
        for group in ('_parameters', '_buffers', '_modules'):
            children = module.state.get(group)
            if not isinstance(children, Mapping):
                continue
            self._pay(len(children))
            for key, child in _items(children):
                if isinstance(child, (Tensor, NumpyArray, Module)):
                    self.add(_join(name, key), child, depth + 1, True)

    def _pay(self, cost: int, depth: int = 0) -> None:
        """Adds to the cost. Raises UserError if it, or the depth of the containers, is too much."""
        self.cost += cost
        if depth > MAX_DEPTH or self.cost > MAX_COST:
            raise UserError(
                f'its containers are nested or repeated without end; legal: {MAX_DEPTH} inside each '
                f'other, and some {MAX_COST // VISIT:,} items'
            )


def collect(root: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Returns (tensors, metadata) of the object that a file holds, both under dotted names.

    The parameters and buffers of a module have the module's name, then their name in its state dict.
    The metadata are the plain values, and the `class_name` and `init_kwargs` of outermost modules.
    Raises ValueError if a tensor reaches outside its storage, and UserError if containers are nested
    without end or a name is too long.
    """
    collector = _Collector()
    collector.add('', root, 0, False)
    return collector.tensors, collector.metadata


def _items(node: Mapping) -> Iterator[tuple[Any, Any]]:
    """Yields the items of a dict; a key that is no text or number is named by its type and place."""
    for place, (key, child) in enumerate(node.items()):
        yield key if isinstance(key, PLAIN) else f'{type(key).__name__}{place}', child


def _join(name: str, key: Any) -> str:
    """Returns the name of an item with this key. Raises UserError if it is too long."""
    if isinstance(key, str) and len(name) + len(key) > MAX_NAME:
        raise UserError(f'a name has over {MAX_NAME:,} characters, the limit: {shown(key)[:40]}...')
    return f'{name}.{key}' if name else str(key)


def _is_plain_list(node: Any) -> bool:
    return isinstance(node, (list, tuple)) and all(isinstance(item, PLAIN) for item in node)
