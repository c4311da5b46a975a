"""The snapshots that a search combines: those of a training run, or of several.

Weights of several runs of one network on the same data can be merged as those of one run can (Diffusion
Soup, arXiv 2406.08431). Their snapshots are ordered by training step, and those of one step as the runs
are named. So an average over the snapshots that falls off with their age is, for runs with the same
steps, about the average of what it is for each run.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath

from cm_jax.config import differences
from cm_jax.errors import UserError, listed
from cm_jax.lcsc import combine
from cm_jax.run import Run
from cm_jax.run_folder import SNAPSHOTS, read_record, write_record
from cm_jax.settings import Basis
from cm_jax.wiring import weights_meaning


class Snapshot(NamedTuple):
    """A snapshot of a training run."""

    step: int
    run: Run

    def __str__(self) -> str:
        return f'{self.step} of {self.run.workdir}'


def folders(workdir: str) -> list[str]:
    """Returns the run folders that `config.basis.workdir` names, separated by commas.

    Raises UserError if it names one twice.
    """
    named = [folder.strip() for folder in workdir.split(',')]
    if len(set(named)) < len(named):
        raise UserError(f'config.basis.workdir names a run twice: {", ".join(named)}')
    return named


def check_alike(runs: Sequence[Run]) -> None:
    """Raises UserError, naming what differs, unless all runs have one network and the same data."""

    def described(run: Run) -> dict[str, Any]:
        meaning = weights_meaning(run.settings, run.card['image_shape'])
        return {**meaning, 'data': dict(run.card)}

    for other in runs[1:]:
        if differing := differences(described(runs[0]), described(other)):
            raise UserError(
                f'weights of {runs[0].workdir} (there) and {other.workdir} (here) cannot be combined: '
                f'{"; ".join(differing)}'
            )


def ordered(runs: Sequence[Run], basis: Basis) -> list[Snapshot]:
    """Returns the snapshots of the window of each run, ordered by step and then by run.

    The last is that of the latest step, and of the last run that has it. Raises UserError if a run has
    no snapshot in the window, or a single run fewer than two.
    """
    if len(runs) > 1:
        check_alike(runs)
    least = 2 if len(runs) == 1 else 1
    found = [
        Snapshot(step, run)
        for run in runs
        for step in combine.window(run.steps(), basis.start, basis.stop, basis.every, least)
    ]
    return sorted(found, key=lambda snapshot: snapshot.step)


def keep(workdir: epath.Path, origin: Mapping[str, Any]) -> None:
    """Keeps in the folder of a search what it combines, or compares it with what was kept there.

    Coefficients that were searched are those of these snapshots. Raises UserError, naming what differs,
    if they were others when the search began.
    """
    path, kept = workdir / SNAPSHOTS, dict(origin)
    if not path.exists():
        write_record(path, kept)
        return
    began = read_record(workdir, SNAPSHOTS, dict)
    if began == kept:
        return
    gone = [step for step in began['steps'] if step not in kept['steps']]
    new = [step for step in kept['steps'] if step not in began['steps']]
    raise UserError(
        f'{workdir} began as a search of other snapshots of {kept["workdir"]}: gone are those of the '
        f'steps {listed(gone)}, new those of {listed(new)}. Bring back what it began with, or start '
        'afresh with --fresh (the old folder is kept aside)'
    )
