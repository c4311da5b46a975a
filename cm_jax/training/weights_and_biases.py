"""The metrics of a training run in Weights & Biases, for a run whose `train.wandb` names a project."""

import importlib
from collections.abc import Mapping
from typing import Any

from etils import epath

from cm_jax.errors import UserError
from cm_jax.run_folder import WANDB, read_record, write_record


def check(project: str) -> None:
    """Raises UserError if a project is named and the package wandb is not installed."""
    if project:
        _package(project)


def _package(project: str) -> Any:
    try:
        return importlib.import_module('wandb')
    except ImportError:
        raise UserError(
            f'config.train.wandb = {project!r} needs the package wandb: pip install wandb, then wandb '
            "login; or leave it out with --config.train.wandb=''"
        ) from None


class WeightsAndBiases:
    """A run of Weights & Biases that gets the metrics of a training run.

    The run folder keeps its id, so that a training run that continues goes on in the same run there.
    Rows that come again after a kill are left out by Weights & Biases, which takes each step once.
    Raises UserError if it cannot be opened, as where nobody is logged in.
    """

    def __init__(self, project: str, workdir: epath.Path, config: Mapping[str, Any]):
        wandb, path = _package(project), workdir / WANDB
        known = read_record(workdir, WANDB, lambda stored: stored['id']) if path.exists() else None
        folder = {} if '://' in str(workdir) else {'dir': str(workdir)}
        try:
            self._run = wandb.init(
                project=project,
                name='/'.join(workdir.parts[-2:]),
                id=known,
                resume='allow',
                config=dict(config),
                **folder,
            )
        except wandb.Error as error:
            raise UserError(
                f'Weights & Biases does not open the project {project!r}: {error}; WANDB_MODE=offline '
                'keeps what it would get in the run folder'
            ) from None
        if known is None:
            write_record(path, {'id': self._run.id, 'project': project})

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Sends the metrics of a step; the package does so in a process of its own."""
        self._run.log(dict(metrics), step=step)

    def close(self, failed: bool) -> None:
        """Ends the run there, marked as failed or finished."""
        self._run.finish(exit_code=int(failed))
