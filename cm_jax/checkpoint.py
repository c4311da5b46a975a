"""The two Orbax streams of a run: `resume/` (all training state) and `trajectory/` (weights).

Everything restores to numpy with no device mesh, so that a pod's checkpoint opens on a laptop.
Orbax writes a step beside its place and renames it when it is whole: an interrupted save leaves the
steps before it as they were.
"""

import contextlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from cm_jax.errors import FULL_DISK, UserError, check_name
from cm_jax.types import Params

FULL_DISK_WORDS = ('no space left', 'disk quota', 'file too large', 'resource_exhausted')


class Stream:
    """A folder of steps, each a set of named items; `keep` is how many newest steps stay."""

    def __init__(self, folder: str | epath.Path, keep: int | None = None, create: bool = True):
        self.folder = epath.Path(folder)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, create=create, cleanup_tmp_directories=create
        )
        self._manager = ocp.CheckpointManager(self.folder.resolve(), options=options)

    def steps(self) -> list[int]:
        """The complete steps, ascending."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, trees: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
        """Saves the trees and a JSON-able `meta` as one step, in the background.

        Raises UserError when the disk is full, now or in the save before this one.
        """
        items = {name: ocp.args.StandardSave(tree) for name, tree in trees.items()}
        items['meta'] = ocp.args.JsonSave(dict(meta))
        try:
            self._manager.wait_until_finished()
            saved = self._manager.save(step, args=ocp.args.Composite(**items), force=True)
        except Exception as error:
            raise self._explain(error) from error
        if not saved:
            raise RuntimeError(f'step {step} was not saved in {self.folder}: it is there already')

    def wait(self) -> None:
        """Returns when the last save is whole. Raises UserError when the disk was full."""
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._explain(error) from error

    def restore(self, step: int, templates: Mapping[str, Any]) -> tuple[dict[str, Any], dict]:
        """(trees, meta) of a step; a template is a tree of arrays or of shapes with shardings."""
        items = {name: ocp.args.StandardRestore(tree) for name, tree in templates.items()}
        items['meta'] = ocp.args.JsonRestore()
        restored = self._manager.restore(step, args=ocp.args.Composite(**items))
        return {name: restored[name] for name in templates}, restored['meta']

    def delete_after(self, step: int) -> None:
        """Deletes the steps that are later than `step`."""
        for later in [s for s in self.steps() if s > step]:
            self._manager.delete(later)

    def close(self) -> None:
        self.wait()
        self._manager.close()

    def __enter__(self) -> 'Stream':
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if error is None:
            self.close()
            return
        with contextlib.suppress(Exception):  # the error under way is the one to tell
            self.close()

    def _explain(self, error: Exception) -> Exception:
        full = any(text in str(error).lower() for text in FULL_DISK_WORDS)
        if not full and getattr(error, 'errno', None) not in FULL_DISK:
            return error
        steps = self.steps()
        kept = f'steps up to {steps[-1]} are whole' if steps else 'no step is there yet'
        return UserError(
            f'the disk is full: a save in {self.folder} failed; {kept}; make room and run the same '
            'command again'
        )


def list_steps(folder: str | epath.Path) -> list[int]:
    """The complete steps of a stream, ascending; [] where there is no such folder."""
    folder = epath.Path(folder)
    if not folder.exists():
        return []
    found = [p for p in folder.iterdir() if p.name.isdigit()]
    if '://' in str(folder):  # where Orbax writes in place, and marks what is whole
        found = [p for p in found if (p / 'commit_success.txt').exists()]
    return sorted(int(p.name) for p in found)


def load(folder: str | epath.Path, step: int, item: str) -> Params:
    """One item of one step as nested dicts of numpy arrays, without knowing the model.

    Raises UserError, naming what there is, when the step or the item is missing.
    """
    folder = epath.Path(folder)
    steps = list_steps(folder)
    if step not in steps:
        raise UserError(f'no step {step} in {folder}; there are: {_ranges(steps)}')
    items = sorted(p.name for p in (folder / str(step)).iterdir() if p.is_dir())
    check_name(f'item of step {step} in {folder}', item, [i for i in items if i != 'meta'])
    path = (folder / str(step) / item).resolve()
    handler = ocp.StandardCheckpointHandler()
    shapes = handler.metadata(path).tree
    template = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), shapes)
    return handler.restore(path, args=ocp.args.StandardRestore(template))


def _ranges(steps: list[int]) -> str:
    if len(steps) > 12:
        return (
            f'{", ".join(map(str, steps[:5]))}, ... {steps[-2]}, {steps[-1]} ({len(steps)} steps)'
        )
    return ', '.join(map(str, steps)) or 'none'
