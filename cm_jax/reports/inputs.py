"""What a comparison is made from: the run folders of the teacher, of ECT and of the searches."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from etils import epath

from cm_jax.config import differences
from cm_jax.errors import UserError
from cm_jax.lcsc import combine, job
from cm_jax.lcsc.identity import BEMA, EMA, EMA_STAR, LAST, UNIFORM, WINDOW
from cm_jax.reports.rows import Entry, Report
from cm_jax.reports.searches import Search, open_finished
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
    read_record,
)
from cm_jax.settings import parse_search
from cm_jax.types import Params

# The files that each folder must hold, and the command that makes them.
NEEDED = {
    'teacher': (CONFIG, DATA_CARD, TRAJECTORY),
    'ect': (CONFIG, DATA_CARD, TRAJECTORY),
    'lcsc': (SEARCH, REPORT, COEFFICIENTS, CHOSEN, candidates_file(job.SEARCH)),
}
SEARCHED = 'cm_jax.search --config=configs/digits_lcsc.py{} --config.basis.workdir=ECT'
MADE_BY = {
    'teacher': 'cm_jax.train --config=configs/digits_edm.py',
    'ect': 'cm_jax.train --config=configs/digits_ect.py --config.init_from.workdir=TEACHER',
    'lcsc': SEARCHED.format(''),
    'lcsc_gradient': SEARCHED.format(':gradient'),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    """The two training runs, and the searches over the snapshots of the second."""

    teacher: Run
    ect: Run
    searches: Sequence[Search]

    @property
    def reports(self) -> list[Report]:
        """What the searches have reported."""
        return [search.report for search in self.searches]

    def search(self, entry: Entry) -> Search:
        """Returns the search that a row is from."""
        return next(search for search in self.searches if search.report is entry.report)


def open_inputs(teacher: epath.Path, ect: epath.Path, searches: Sequence[epath.Path]) -> Inputs:
    """Opens the folders of the teacher, of ECT and of the searches.

    Raises UserError if a file is missing, naming the command that makes it, if a search was not over
    the snapshots of this ECT run, and if a folder is named twice.
    """
    for model, folder in (('teacher', teacher), ('ect', ect), *(('lcsc', f) for f in searches)):
        for name in NEEDED[model]:
            if not (folder / name).exists():
                made_by = MADE_BY.get(folder.name if model == 'lcsc' else model, MADE_BY[model])
                raise UserError(
                    f'{folder} has no {name}; this makes it: python -m {made_by} --workdir={folder}'
                )
    twice = [folder for folder in searches if searches.count(folder) > 1]
    if twice:
        raise UserError(f'--lcsc names {twice[0]} twice')
    configs = [read_record(folder, SEARCH, dict) for folder in searches]
    methods = [parse_search(config).search['method'] for config in configs]
    names = [
        f'{method}, {folder}' if methods.count(method) > 1 else method
        for method, folder in zip(methods, searches)
    ]
    inputs = Inputs(
        teacher=open_run(teacher),
        ect=open_run(ect),
        searches=[open_finished(f, c, n) for f, c, n in zip(searches, configs, names)],
    )
    for search in inputs.searches:
        if search.runs:
            raise UserError(
                f'{search.run.workdir} is a search over several runs, {search.basis}; a comparison '
                'takes searches over one'
            )
        check_basis(search, inputs.ect)
    return inputs


def check_basis(search: Search, ect: Run) -> None:
    """Raises UserError unless the search was over snapshots of this very ECT run."""

    def training_config(run: Run) -> dict[str, Any]:
        config = run.config.to_dict()
        return {k: v for k, v in config.items() if k not in ('sampling', 'evaluation')}

    differing = differences(training_config(search.run), training_config(ect))
    if differing or not set(search.steps) <= set(ect.steps()):
        raise UserError(
            f'{search.run.workdir} is no search over {ect.workdir}: '
            f'{"; ".join(differing) or "its snapshots are not there"}'
        )


def load_weights(inputs: Inputs, entry: Entry) -> Params:
    """Returns the weights that a row scored."""
    if entry.model == 'teacher':
        return inputs.teacher.params(None, entry.weights)
    search = inputs.search(entry)
    if entry.model == 'lcsc':
        return search.run.params()
    kind, label = entry.row['kind'], entry.weights
    if kind == LAST:
        return inputs.ect.params(search.steps[-1], search.ema)
    if kind in (EMA_STAR, UNIFORM, WINDOW, BEMA):

        def load_snapshot(step: int) -> Params:
            return inputs.ect.params(step, search.ema)

        average = search.average(kind)
        return inputs.ect.project(combine.combine(load_snapshot, search.steps, average))
    stored = label.removeprefix(f'{EMA} ') if kind == EMA else label
    return inputs.ect.params(search.steps[-1], stored)
