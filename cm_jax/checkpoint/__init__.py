"""The two Orbax streams of a run: `resume/` (all training state) and `trajectory/` (weights).

A step can be restored as numpy arrays without a device mesh, so that a checkpoint written on a pod
opens on a laptop. Orbax writes a step under a temporary name and renames it when it is complete, so
that an interrupted save leaves all earlier steps as they were.

A step also holds checksums of what was saved, and whatever is read is compared with them
(cm_jax/checkpoint/step.py).
"""

import contextlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import orbax.checkpoint as ocp
from etils import epath

from cm_jax.checkpoint import step as step_folder
from cm_jax.checkpoint.step import CHECKSUMS, META, DamagedStep
from cm_jax.errors import FULL_DISK, UserError, listed
from cm_jax.files import free_name
from cm_jax.sharding import is_primary, wait_for_all
from cm_jax.types import Params

# Words of an error that say that the disk is full; not every such error has an errno.
FULL_DISK_WORDS = ('no space left', 'disk quota', 'file too large', 'resource_exhausted')


class Restored(NamedTuple):
    """A step that was restored."""

    step: int
    trees: dict[str, Any]
    meta: dict[str, Any]
    damaged: Mapping[int, DamagedStep]  # the later steps that are not whole


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
        plain = json.loads(json.dumps(meta))  # as it will be read
        items = {name: ocp.args.StandardSave(tree) for name, tree in trees.items()}
        items |= {
            META: ocp.args.JsonSave(plain),
            CHECKSUMS: ocp.args.JsonSave(step_folder.seal(trees, plain)),
        }
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
        shardings, like the tree that was saved. Raises DamagedStep if the step is not what was saved.
        """
        return step_folder.restore(self.folder / str(step), templates)

    def restore_newest(self, templates: Mapping[str, Any]) -> Restored | None:
        """Returns the newest step that is whole, or None if there is no step. See `restore`.

        Raises UserError if there are steps and none is whole. Changes nothing.
        """
        damaged: dict[int, DamagedStep] = {}
        for step in reversed(self.steps()):
            try:
                trees, meta = self.restore(step, templates)
            except DamagedStep as error:
                damaged[step] = error
            else:
                return Restored(step=step, trees=trees, meta=meta, damaged=damaged)
        if damaged:
            raise UserError(
                f'no step in {self.folder} is whole: {"; ".join(map(str, damaged.values()))}. '
                'Nothing was changed; --fresh starts again and keeps the old folder aside'
            )
        return None

    def set_aside(self, step: int, word: str) -> epath.Path:
        """Renames a step to the first free `<step>.<word>1`, `<step>.<word>2`, ...; returns the path.

        It no longer counts as a step, and is never deleted.
        """
        path = self.folder / str(step)
        aside = free_name(path, word)
        wait_for_all('name of a step set aside')
        if is_primary():
            path.rename(aside)
        wait_for_all('step set aside')
        self._manager.reload()
        return aside

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

    Raises UserError if the step or the item is missing; the error lists those that exist. Raises
    DamagedStep if the item is not what was saved.
    """
    folder = epath.Path(folder)
    steps = list_steps(folder)
    if step not in steps:
        raise UserError(f'no step {step} in {folder}; there are: {listed(steps)}')
    return step_folder.load(folder / str(step), item)


def shardings(folder: str | epath.Path, step: int, item: str) -> dict[str, str]:
    """Returns how each array of an item of a step lay on devices when it was saved, in words."""
    return step_folder.shardings(epath.Path(folder) / str(step), item)
