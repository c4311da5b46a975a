"""A finished search, for the pages that show it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from cm_jax.lcsc import selection
from cm_jax.lcsc.identity import EMA_STAR, UNIFORM
from cm_jax.lcsc.opened import SearchFolder, open_search
from cm_jax.reports.rows import Report, main_score
from cm_jax.run import Run, open_run
from cm_jax.run_folder import CHOSEN, REPORT, read_record
from cm_jax.settings import SearchSettings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search:
    """A search that has come to its end, and what it has found."""

    folder: SearchFolder
    run: Run  # the weights that were found
    config: Mapping[str, Any]  # the resolved config of the search
    chosen: selection.Chosen  # who was chosen on selection noise
    cost: Mapping[str, int]  # network evaluations, as lcsc.session.cost counts them
    report: Report

    @property
    def settings(self) -> SearchSettings:
        """The config of the search, parsed."""
        return self.folder.settings

    @property
    def basis(self) -> str:
        """The folder of the training run that was searched, or of several."""
        return self.folder.origin['workdir']

    @property
    def steps(self) -> list[int]:
        """The training steps of the K snapshots that were combined."""
        return self.folder.origin['steps']

    @property
    def runs(self) -> list[str]:
        """The folders of the runs that they are of; [] if all are of one."""
        return self.folder.origin.get('runs', [])

    @property
    def ema(self) -> str:
        """Which average of the weights was combined; '' is the weights themselves."""
        return self.folder.origin['ema']

    @property
    def ema_star(self) -> str:
        """The label of the best EMA profile over the snapshots, which is of the kind EMA_STAR."""
        return self.chosen.choices[EMA_STAR].identity(EMA_STAR).label

    def average(self, kind: str) -> np.ndarray:
        """Returns the coefficients [K] of the average of the snapshots that the report has of a kind.

        The kinds are EMA_STAR, UNIFORM and those of the scanned baselines.
        """
        k = len(self.steps)
        if kind in self.chosen.baselines:
            return self.chosen.baselines[kind].coefficients
        if kind == UNIFORM:
            return np.full(k, 1 / k)
        return self.chosen.choices[kind].coefficients[:k]  # the same for every group


def open_finished(workdir: epath.Path, config: Mapping[str, Any], name: str) -> Search:
    """Opens the folder of a finished search, with its config; pages call it `name`.

    The reports of earlier versions do not say which spaces they used: it was that of the main score.
    """
    folder, report = open_search(workdir), read_record(workdir, REPORT, dict)
    rows = selection.read_rows(report['rows'])
    searched = tuple(report.get('searched', [main_score(rows[0])]))
    count, sampler = len(folder.origin['steps']), folder.settings.budget.sampler
    return Search(
        folder=folder,
        run=open_run(workdir),
        config=config,
        chosen=selection.load_chosen(workdir / CHOSEN),
        cost=report['cost'],
        report=Report(name, searched, sampler, count, rows),
    )
