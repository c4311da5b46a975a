"""The searches that a study of LCSC compares, in WORKDIR/search/<use>/<method>/seed<k>."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from cm_jax.errors import UserError, check_name
from cm_jax.lcsc.job import parse_metric
from cm_jax.lcsc.selection import read_rows
from cm_jax.reports.study_methods import SEED
from cm_jax.run import Run, open_run
from cm_jax.run_folder import COEFFICIENTS, REPORT, SEARCH, read_record
from cm_jax.settings import SearchSettings, parse_search

METHODS = {  # the folder of a method, and its name in tables
    'random': 'random search',
    'cma_es': 'CMA-ES',
    'evolution': 'evolution',
    'gradient': 'gradient',
    'gradient_two': 'gradient (two spaces)',
}
EVOLUTION, GRADIENT_TWO = 'evolution', 'gradient_two'
# The uses, and the methods of each. The first report of `evolution` has the averages of the use.
USES = {
    'consistency_1': tuple(METHODS),
    'consistency_2': tuple(METHODS),
    'diffusion_9': tuple(METHODS),
    'diffusion_15': (EVOLUTION,),
    'long': (EVOLUTION,),
    'cut': (EVOLUTION, GRADIENT_TWO),
    'more': (EVOLUTION, GRADIENT_TWO),
}
# Network evaluations of an image in training, by objective: 3 for the pass of the network forward and
# back, and 1 more where a target is computed by another pass forward.
TRAINING = {'edm': 3, 'ect': 4}
COSTS = ('search', 'selection')  # the parts of a report's cost that are the search's own


class Searches(NamedTuple):
    """The searches of one use with one method: what those of all search seeds have written."""

    paths: list[epath.Path]  # a folder for each search seed
    run: Run  # the training run that was searched
    reports: list[dict[str, Any]]  # the report.json of each search
    settings: SearchSettings  # of the first; those of the others have other seeds
    snapshots: int  # how many were combined

    @property
    def seeds(self) -> list[str]:
        """The names of the folders of the search seeds."""
        return [path.name for path in self.paths]

    def row(self, kind: str, search: int = 0) -> dict[str, Any]:
        """Returns, from the report of a search, the row of the model of this kind (see lcsc.identity).

        A row is that of the sampler that was searched with. Raises UserError if there is none.
        """
        rows = self.of_sampler(self.reports[search])
        row = next((row for row in rows if row['kind'] == kind), None)
        if row is None:
            raise UserError(
                f'{self.paths[search]}: its report has no {kind} with {self.settings.budget.sampler}; '
                f'it has: {", ".join(row["label"] for row in rows) or "none"}'
            )
        return row

    def rows(self, kind: str) -> list[dict[str, Any]]:
        """Returns `row` of the report of each search."""
        return [self.row(kind, search) for search in range(len(self.reports))]

    def of_sampler(self, report: dict[str, Any]) -> list[dict[str, Any]]:
        """Returns the rows of a report with the sampler that was searched with."""
        spec = self.settings.budget.sampler
        return [row for row in report['rows'] if row['protocol']['sampler'] == spec]

    def searched(self, main: str) -> set[str]:
        """Returns the names of the metrics that were minimised; `main` is that of an empty text."""
        return set(parse_metric(self.settings.budget.metric)) or {main}

    def costs(self) -> dict[str, float]:
        """Returns how many network evaluations a search took, by COSTS: the means over the seeds."""
        return {
            part: float(np.mean([report['cost'][part] for report in self.reports]))
            for part in COSTS
        }

    def training_cost(self) -> int:
        """Returns how many network evaluations the training run took.

        Raises UserError if those of its objective are not known.
        """
        name = self.run.settings.objective['name']
        check_name('objective of a run in the study', name, TRAINING)
        return self.run.settings.images_seen() * TRAINING[name]


Use = dict[str, Searches]  # by method


def open_searches(folder: epath.Path) -> Searches:
    """Opens the searches folder/seed<k> of one use and method.

    Raises UserError if there are none, or if one is not finished.
    """
    paths = [path for path in sorted(folder.glob('seed*')) if SEED.fullmatch(path.name)]
    if not paths:
        raise UserError(f'{folder} holds no seed<k> searches: bash launch/study.sh lcsc makes them')
    for path in paths:
        if not (path / REPORT).exists():
            raise UserError(f'{path} has no report.json: its search is not finished')
    reports = [read_record(path, REPORT, dict) for path in paths]
    combination = read_record(paths[0], COEFFICIENTS, dict)
    return Searches(
        paths=paths,
        run=open_run(combination['workdir']),
        reports=[report | {'rows': read_rows(report['rows'])} for report in reports],
        settings=parse_search(read_record(paths[0], SEARCH, dict)),
        snapshots=len(combination['steps']),
    )


def open_use(folder: epath.Path, methods: Sequence[str]) -> Use:
    """Opens the searches folder/<method>/seed<k> of one use.

    Raises UserError as `open_searches` does, and if the methods were not searched with the same seeds.
    """
    use = {method: open_searches(folder / method) for method in methods}
    first = use[methods[0]].seeds
    for method, searches in use.items():
        if searches.seeds != first:
            raise UserError(
                f'{folder} holds {", ".join(searches.seeds)} of {method}, and {", ".join(first)} of '
                f'{methods[0]}: bash launch/study.sh lcsc makes what is missing'
            )
    return use
