"""One step of a stream, read from its folder and compared with the checksums that it was saved with.

A step has an item CHECKSUMS with the checksums of all its other items and one of its own. Steps of
earlier versions have none, and are read as they are.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from cm_jax.checkpoint import checksums
from cm_jax.errors import UserError, check_name, shown
from cm_jax.files import CRC32, sealed, unsealed
from cm_jax.sharding import in_any_process
from cm_jax.types import Params

META, CHECKSUMS = 'meta', 'checksums'  # the items of a step that are JSON
Checksums = dict[str, Any]  # by item: of META one, of a tree what `checksums.of_tree` returns


class DamagedStep(UserError):
    """A step is not what was saved, or cannot be read."""


def seal(trees: Mapping[str, Any], meta: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the item CHECKSUMS of a step of these trees."""
    sums = {name: checksums.of_tree(tree) for name, tree in trees.items()}
    return sealed({META: sealed(meta)[CRC32]} | sums)


def restore(step: epath.Path, templates: Mapping[str, Any]) -> tuple[dict[str, Any], dict]:
    """Returns (trees, meta) of a step, by its folder. See `Stream.restore`.

    Raises DamagedStep in every process if one of them finds the step damaged.
    """
    sums, meta, trees, error = None, {}, {}, None
    try:
        sums = _read_checksums(step)
        meta = _read_json(step, META)
        if sums is not None and sealed(meta)[CRC32] != sums[META]:
            raise _changed(step, META)
        trees = {item: _restore(step, item, template) for item, template in templates.items()}
    except DamagedStep as found:
        error = found
    _raise_in_all(step, error)
    if sums is not None:
        errors = [_compare(step, item, tree, sums[item]) for item, tree in trees.items()]
        _raise_in_all(step, next(filter(None, errors), None))
    return trees, meta


def load(step: epath.Path, item: str) -> Params:
    """Returns an item of a step, by its folder, as nested dicts of numpy arrays.

    Raises UserError if there is no such item, and DamagedStep if it is not what was saved.
    """
    sums = _read_checksums(step)
    items = {path.name for path in step.iterdir() if path.is_dir()} | set(sums or ())
    if not items:
        raise DamagedStep(f'step {step.name} in {step.parent} is damaged: it is empty')
    check_name(f'item of step {step.name} in {step.parent}', item, items - {META, CHECKSUMS})
    tree = _load(step, item)
    if sums is not None and (error := _compare(step, item, tree, sums[item])):
        raise error
    return tree


def shardings(step: epath.Path, item: str) -> dict[str, str]:
    """Returns how each array of an item lay on devices when it was saved, by its path, in words.

    For example 'whole on 4 devices', or 'axis 3 over 4 devices' for an array that was split. Reads no
    arrays. Raises DamagedStep if the item cannot be read.
    """
    with _reading(step, item):
        saved = ocp.StandardCheckpointHandler().metadata((step / item).resolve()).tree
        return {path: _in_words(leaf.sharding) for path, leaf in checksums.leaves(saved)}


def _in_words(sharding: Any) -> str:
    """Returns what Orbax has stored of a sharding, in words."""
    if sharding is None:
        return 'numpy'
    devices = math.prod(getattr(sharding, 'shape', (1,)))
    count = f'{devices} device{"s" if devices > 1 else ""}'
    spec = getattr(sharding, 'partition_spec', ())
    split = [str(axis) for axis, name in enumerate(spec) if name is not None]
    if devices == 1 or not split:
        return f'whole on {count}'
    return f'ax{"es" if len(split) > 1 else "is"} {", ".join(split)} over {count}'


def _restore(step: epath.Path, item: str, template: Any) -> Any:
    """Returns an item as arrays like those of the template. Raises DamagedStep if it cannot be read."""
    try:
        return _read(step / item, template)
    except (MemoryError, jax.errors.JaxRuntimeError):
        raise
    except Exception as error:
        if _layout(_load(step, item)) != _layout(template):
            raise  # it can be read: it is the template that is another
        raise _unreadable(step, item, error) from error


def _load(step: epath.Path, item: str) -> Params:
    """Returns an item as numpy arrays. Raises DamagedStep if it cannot be read."""
    with _reading(step, item):
        shapes = ocp.StandardCheckpointHandler().metadata((step / item).resolve()).tree
        template = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), shapes)
        return _read(step / item, template)


def _read(path: epath.Path, template: Any) -> Any:
    """Returns the arrays in the folder of an item, like those of the template."""
    args = ocp.args.StandardRestore(template)
    return ocp.StandardCheckpointHandler().restore(path.resolve(), args=args)


def _read_json(step: epath.Path, item: str) -> dict[str, Any]:
    """Returns an item that is a JSON object. Raises DamagedStep if it cannot be read."""
    with _reading(step, item):
        return {**ocp.JsonCheckpointHandler().restore(step / item)}


def _read_checksums(step: epath.Path) -> Checksums | None:
    """Returns the checksums of a step; None if it is of an earlier version. Raises DamagedStep."""
    if not (step / CHECKSUMS).exists():
        return None
    stored = _read_json(step, CHECKSUMS)
    if CRC32 not in stored:
        raise _changed(step, CHECKSUMS)
    try:
        return unsealed(stored)
    except ValueError:
        raise _changed(step, CHECKSUMS) from None


def _compare(step: epath.Path, item: str, tree: Any, saved: Any) -> DamagedStep | None:
    """Returns the error that says that a tree that was read is not the one that was saved, or None."""
    wrong = checksums.differing(tree, saved)
    if not wrong:
        return None
    return _changed(step, item, f': {len(wrong)} of {len(saved)} arrays, the first is {wrong[0]}')


def _raise_in_all(step: epath.Path, error: DamagedStep | None) -> None:
    """Raises in every process if one of them has an error; its own, where it has one."""
    if in_any_process(error is not None):
        raise error or DamagedStep(
            f'step {step.name} in {step.parent} is damaged, as another process finds'
        )


@contextlib.contextmanager
def _reading(step: epath.Path, item: str) -> Iterator[None]:
    """Raises DamagedStep where an item cannot be read."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        raise _unreadable(step, item, error) from error


def _layout(tree: Any) -> dict[str, tuple]:
    """Returns the shape and dtype of each array of a tree by its path, whatever the containers are."""
    return {path: (leaf.shape, leaf.dtype) for path, leaf in checksums.leaves(tree)}


def _changed(step: epath.Path, item: str, what: str = '') -> DamagedStep:
    """Returns the error that says that an item is not what was saved."""
    return DamagedStep(f'{_named(step, item)} is damaged: it is not what was saved{what}')


def _unreadable(step: epath.Path, item: str, error: Exception) -> DamagedStep:
    """Returns the error that says that an item cannot be read, and why."""
    reason = shown(' '.join(f'{type(error).__name__}: {error}'.split()))
    return DamagedStep(f'{_named(step, item)} is damaged: it cannot be read ({reason})')


def _named(step: epath.Path, item: str) -> str:
    """Returns the words for an item of a step."""
    return f'item {item!r} of step {step.name} in {step.parent}'
