"""A finished search: what it has written into its folder, for the pages that show it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from cm_jax.lcsc import generations, job, plots, selection
from cm_jax.lcsc.identity import EMA_STAR, UNIFORM
from cm_jax.reports.rows import Report, main_score
from cm_jax.run import Run, open_run
from cm_jax.run_folder import CHOSEN, COEFFICIENTS, LANDSCAPE, REPORT, read_record
from cm_jax.settings import SearchSettings, parse_search


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search:
    """A search, and what it has written into its folder."""

    run: Run
    basis: str  # the folder of the training run that was searched, or of several
    config: Mapping[str, Any]  # the resolved config of the search
    settings: SearchSettings  # the same, parsed
    steps: list[int]  # the training steps of the K snapshots that were combined
    runs: list[str]  # the folders of the runs that they are of; [] if all are of one
    ema: str  # which average of the weights was combined; '' is the weights themselves
    groups: Sequence[str]  # the patterns of the groups of weights
    coefficients: list[float]  # of the combination that was chosen: K for each group
    candidates: list[dict[str, Any]]  # all that the search scored
    random_candidates: list[dict[str, Any]]  # all that the random search scored
    chosen: selection.Chosen  # who was chosen on selection noise
    landscape: np.ndarray | None  # scores [n, n] of the plane through three snapshots, if drawn
    cost: Mapping[str, int]  # network evaluations, as lcsc.session.cost counts them
    report: Report

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


def open_search(folder: epath.Path, config: Mapping[str, Any], name: str) -> Search:
    """Opens the folder of a finished search, with its config.

    The reports of earlier versions do not say which spaces they used: it was that of the main score.
    """
    combination, report = (read_record(folder, name, dict) for name in (COEFFICIENTS, REPORT))
    rows, settings = selection.read_rows(report['rows']), parse_search(config)
    searched = report.get('searched', [main_score(rows[0])])
    return Search(
        run=open_run(folder),
        basis=combination['workdir'],
        config=config,
        settings=settings,
        steps=combination['steps'],
        runs=combination.get('runs', []),
        ema=combination['ema'],
        groups=combination['groups'],
        coefficients=combination['coefficients'],
        candidates=generations.read_candidates(folder, job.SEARCH),
        random_candidates=generations.read_candidates(folder, job.RANDOM),
        chosen=selection.load_chosen(folder / CHOSEN),
        landscape=read_landscape(folder, len(combination['steps']), settings.controls.landscape),
        cost=report['cost'],
        report=Report(
            name, tuple(searched), settings.budget.sampler, len(combination['steps']), rows
        ),
    )


def read_landscape(folder: epath.Path, snapshots: int, size: int) -> np.ndarray | None:
    """Returns the scores of the plane through three snapshots; None if the search has drawn none."""
    if not (folder / LANDSCAPE).exists():
        return None
    return plots.read_landscape(folder, plots.plane(snapshots, size))
