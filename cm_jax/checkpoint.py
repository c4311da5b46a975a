"""The two Orbax streams of a run: `resume/` (all training state) and `trajectory/` (weights).

A step can be restored as numpy arrays without a device mesh, so that a checkpoint written on a pod
opens on a laptop. Orbax writes a step under a temporary name and renames it when it is complete, so
that an interrupted save leaves all earlier steps as they were.
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

# Words of an error that say that the disk is full; not every such error has an errno.
FULL_DISK_WORDS = ('no space left', 'disk quota', 'file too large', 'resource_exhausted')


class Stream:
    """A folder of steps, each of which is a set of named items.

    `keep` is the number of newest steps that are kept; None keeps all. `create` makes the folder if it
    is missing, and clears away what an interrupted save left.
    """

    def __init__(self, folder: str | epath.Path, keep: int | None = None, create: bool = True):
        self.folder = epath.Path(folder)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, create=create, cleanup_tmp_directories=create
        )
        self._manager = ocp.CheckpointManager(self.folder.resolve(), options=options)

    def steps(self) -> list[int]:
        """Returns the complete steps, ascending."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, trees: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
        """Saves the trees, and `meta` as JSON, as one step. Writing goes on in the background.

        Waits first until the save before is complete. Raises UserError if the disk is full, whether the
        earlier save or this one meets it, and RuntimeError if the step exists already.
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
        """Waits until the last save is complete. Raises UserError if the disk was full."""
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._explain(error) from error

    def restore(self, step: int, templates: Mapping[str, Any]) -> tuple[dict[str, Any], dict]:
        """Returns (trees, meta) of a step.

        `templates` names the items to restore. Each template is a tree of arrays, or of shapes with
        shardings, like the tree that was saved.
        """
        items = {name: ocp.args.StandardRestore(tree) for name, tree in templates.items()}
        items['meta'] = ocp.args.JsonRestore()
        restored = self._manager.restore(step, args=ocp.args.Composite(**items))
        return {name: restored[name] for name in templates}, restored['meta']

    def delete_after(self, step: int) -> None:
        """Deletes the steps that are later than `step`."""
        for later in [s for s in self.steps() if s > step]:
            self._manager.delete(later)

    def close(self) -> None:
        """Waits until the last save is complete, and closes the folder."""
        self.wait()
        self._manager.close()

    def __enter__(self) -> 'Stream':
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if error is None:
            self.close()
            return
        # The error under way is what the user must see, not one that closing raises because of it.
        with contextlib.suppress(Exception):
            self.close()

    def _explain(self, error: Exception) -> Exception:
        """Returns a UserError if the error says that the disk is full, or the error itself."""
        full = any(text in str(error).lower() for text in FULL_DISK_WORDS)
        if not full and getattr(error, 'errno', None) not in FULL_DISK:
            return error
        steps = self.steps()
        kept = f'steps up to {steps[-1]} are whole' if steps else 'no step is saved yet'
        return UserError(
            f'the disk is full: a save in {self.folder} failed; {kept}; make room and run the same '
            'command again'
        )


def list_steps(folder: str | epath.Path) -> list[int]:
    """Returns the complete steps of a stream, ascending; [] if the folder does not exist."""
    folder = epath.Path(folder)
    if not folder.exists():
        return []
    step_folders = [path for path in folder.iterdir() if path.name.isdigit()]
    if '://' in str(folder):  # e.g. gs://: Orbax writes in place and marks complete steps
        step_folders = [path for path in step_folders if (path / 'commit_success.txt').exists()]
    return sorted(int(path.name) for path in step_folders)


def load(folder: str | epath.Path, step: int, item: str) -> Params:
    """Returns one item of one step as nested dicts of numpy arrays. The model need not be known.

    Raises UserError if the step or the item is missing; the error lists those that exist.
    """
    folder = epath.Path(folder)
    steps = list_steps(folder)
    if step not in steps:
        raise UserError(f'no step {step} in {folder}; there are: {_listed(steps)}')
    items = sorted(p.name for p in (folder / str(step)).iterdir() if p.is_dir())
    check_name(f'item of step {step} in {folder}', item, [i for i in items if i != 'meta'])
    path = (folder / str(step) / item).resolve()
    handler = ocp.StandardCheckpointHandler()
    shapes = handler.metadata(path).tree
    template = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), shapes)
    return handler.restore(path, args=ocp.args.StandardRestore(template))


def _listed(steps: list[int]) -> str:
    """Returns the steps as words for a message, shortened if they are more than 12."""
    if len(steps) > 12:
        return (
            f'{", ".join(map(str, steps[:5]))}, ... {steps[-2]}, {steps[-1]} ({len(steps)} steps)'
        )
    return ', '.join(map(str, steps)) or 'none'
