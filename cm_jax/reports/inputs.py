"""What a report is made from: the run folders of the teacher, of ECT and of the search."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from cm_jax.config import differences
from cm_jax.errors import UserError
from cm_jax.lcsc import combine, generations, job, selection
from cm_jax.lcsc.identity import BEMA, EMA, EMA_STAR, LAST, UNIFORM, WINDOW
from cm_jax.reports.rows import Entry
from cm_jax.run import Run, open_run
from cm_jax.run_folder import (
    CHOSEN,
    COEFFICIENTS,
    CONFIG,
    DATA_CARD,
    REPORT,
    SEARCH,
    TRAJECTORY,
    candidates_file,
)
from cm_jax.settings import SearchSettings, parse_search
from cm_jax.types import Params

# The files that each folder must hold, and the command that makes them.
NEEDED = {
    'teacher': (CONFIG, DATA_CARD, TRAJECTORY),
    'ect': (CONFIG, DATA_CARD, TRAJECTORY),
    'lcsc': (SEARCH, REPORT, COEFFICIENTS, CHOSEN, candidates_file(job.SEARCH)),
}
MADE_BY = {
    'teacher': 'cm_jax.train --config=configs/digits_edm.py',
    'ect': 'cm_jax.train --config=configs/digits_ect.py --config.init_from.workdir=TEACHER',
    'lcsc': 'cm_jax.search --config=configs/digits_lcsc.py --config.basis.workdir=ECT',
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    """The three runs, and what the search has written into its folder."""

    teacher: Run
    ect: Run
    lcsc: Run
    search_config: Mapping[str, Any]  # the resolved config of the search
    search: SearchSettings  # the same, parsed
    steps: list[int]  # the training steps of the K snapshots that were combined
    ema: str  # which average of the weights was combined; '' is the weights themselves
    groups: Sequence[str]  # the patterns of the groups of weights
    coefficients: list[float]  # of the combination that was chosen: K for each group
    candidates: list[dict[str, Any]]  # all that the search scored
    random_candidates: list[dict[str, Any]]  # all that the random search scored
    chosen: selection.Chosen  # who was chosen on selection noise
    rows: list[dict[str, Any]]  # the rows of report.json

    def average(self, kind: str, label: str) -> np.ndarray:
        """Returns the coefficients [K] of a row of the report that is an average of the snapshots.

        Raises UserError if there is none of that label.
        """
        if kind in self.chosen.baselines:
            return self.chosen.baselines[kind].coefficients
        return self.profile(label)

    def profile(self, label: str) -> np.ndarray:
        """Returns the coefficients [K] of the average over the snapshots that has this label.

        Raises UserError if the search did not start from an average of this label.
        """
        for row in self.candidates:
            if row['profile'] is not None and row['profile'].label == label:
                return np.array(row['coefficients'][: len(self.steps)])  # the same for every group
        raise UserError(f'{self.lcsc.workdir} has no candidate {label!r}')


def open_inputs(folders: Mapping[str, epath.Path]) -> Inputs:
    """Opens the folders of 'teacher', 'ect' and 'lcsc'.

    Raises UserError if a file is missing, naming the command that makes it, or if the search was not
    over the snapshots of this ECT run.
    """
    for model, folder in folders.items():
        for name in NEEDED[model]:
            if not (folder / name).exists():
                raise UserError(
                    f'{folder} has no {name}; this makes it: '
                    f'python -m {MADE_BY[model]} --workdir={folder}'
                )
    runs = {model: open_run(folder) for model, folder in folders.items()}
    lcsc = runs['lcsc'].workdir
    combination, config, report = (
        json.loads((lcsc / name).read_text()) for name in (COEFFICIENTS, SEARCH, REPORT)
    )
    if 'runs' in combination:
        raise UserError(
            f'{lcsc} is a search over several runs, {combination["workdir"]}; a report takes a search '
            'over one'
        )
    inputs = Inputs(
        **runs,
        search_config=config,
        search=parse_search(config),
        steps=combination['steps'],
        ema=combination['ema'],
        groups=combination['groups'],
        coefficients=combination['coefficients'],
        candidates=generations.read_candidates(lcsc, job.SEARCH),
        random_candidates=generations.read_candidates(lcsc, job.RANDOM),
        chosen=selection.load_chosen(lcsc / CHOSEN),
        rows=selection.read_rows(report['rows']),
    )
    check_basis(inputs)
    return inputs


def check_basis(inputs: Inputs) -> None:
    """Raises UserError unless the search was over snapshots of this very ECT run."""

    def training_config(run: Run) -> dict[str, Any]:
        config = run.config.to_dict()
        return {k: v for k, v in config.items() if k not in ('sampling', 'evaluation')}

    differing = differences(training_config(inputs.lcsc), training_config(inputs.ect))
    if differing or not set(inputs.steps) <= set(inputs.ect.steps()):
        raise UserError(
            f'{inputs.lcsc.workdir} is no search over {inputs.ect.workdir}: '
            f'{"; ".join(differing) or "its snapshots are not there"}'
        )


def load_weights(inputs: Inputs, entry: Entry) -> Params:
    """Returns the weights that a row scored."""
    if entry.model == 'teacher':
        return inputs.teacher.params(None, entry.weights)
    if entry.model == 'lcsc':
        return inputs.lcsc.params()
    kind, label = entry.row['kind'], entry.weights
    if kind == LAST:
        return inputs.ect.params(inputs.steps[-1], inputs.ema)
    if kind in (EMA_STAR, UNIFORM, WINDOW, BEMA):

        def load_snapshot(step: int) -> Params:
            return inputs.ect.params(step, inputs.ema)

        average = inputs.average(kind, label)
        return inputs.ect.project(combine.combine(load_snapshot, inputs.steps, average))
    stored = label.removeprefix(f'{EMA} ') if kind == EMA else label
    return inputs.ect.params(inputs.steps[-1], stored)
