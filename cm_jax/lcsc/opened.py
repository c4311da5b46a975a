"""Opens the folder of a search, finished or under way, e.g. in a notebook.

search = open_search('runs/quickstart/lcsc')  # shows what was searched, and how far it is
search.candidates()                           # a table: every candidate with its score
search.coefficients()                         # a table: those of the winner, a row for each snapshot
search.report()                               # a table: the winner beside what it is compared with
search.plot_progress()                        # a picture; or plot_coefficients, plot_landscape
open_run('runs/quickstart/lcsc')              # the winner, as a run with one step
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath
from matplotlib.figure import Figure

from cm_jax.errors import UserError
from cm_jax.files import expanded, read_json_lines
from cm_jax.lcsc import generations, plots, selection, space
from cm_jax.lcsc.identity import EMA_STAR, LCSC
from cm_jax.lcsc.job import RANDOM, SEARCH
from cm_jax.run import summary
from cm_jax.run.tables import Table
from cm_jax.run_folder import (
    CHOSEN,
    COEFFICIENTS,
    LANDSCAPE,
    REPORT,
    REPORT_ROWS,
    SNAPSHOTS,
    read_config,
    read_record,
    weights_label,
)
from cm_jax.run_folder import SEARCH as SEARCH_CONFIG
from cm_jax.settings import SearchSettings, parse_search


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchFolder:
    """The folder of a search that `open_search` opened. Its methods read files and never write."""

    workdir: epath.Path
    settings: SearchSettings  # the config of the search, parsed
    origin: Mapping[str, Any]  # what is combined: workdir, ema, steps, groups; runs, if several

    def __repr__(self) -> str:
        return summary.as_text(str(self.workdir), self._facts())

    def _repr_html_(self) -> str:
        return summary.as_html(str(self.workdir), self._facts())

    def candidates(self, name: str = SEARCH) -> Table:
        """Returns the candidates so far, in the order in which they were scored.

        A row has `generation`, `profile` (the label of an average that the search started from, else
        None), `score` on search noise and `coefficients`, [G K] group by group. `name` is 'search', or
        'random' for those of the random search beside it.
        """
        rows = generations.read_candidates(self.workdir, name)
        labelled = (row | {'profile': row['profile'] and row['profile'].label} for row in rows)
        columns = {key: key for key in ('generation', 'profile', 'score', 'coefficients')}
        return Table(labelled, columns)

    def coefficients(self) -> Table:
        """Returns the coefficients of the winner: a row for each snapshot, oldest first.

        A row has the training `step`, with several runs the `run`, the coefficient in each group of
        weights under the group's name ('all' if there is one group), and that in the best EMA profile
        under its label. Raises UserError before a winner is chosen.
        """
        chosen, names, steps = self._chosen(), self.groups, self.origin['steps']
        ema_star = chosen.choices[EMA_STAR]
        winner = chosen.choices[LCSC].coefficients.reshape(len(names), len(steps))
        profile = ema_star.coefficients.reshape(len(names), len(steps))[0]
        runs = self.origin.get('runs')
        return Table(
            {
                'step': step,
                **({'run': runs[k]} if runs else {}),
                **dict(zip(names, map(float, winner[:, k]))),
                ema_star.identity(EMA_STAR).label: float(profile[k]),
            }
            for k, step in enumerate(steps)
        )

    def report(self) -> Table:
        """Returns the scores of the winner and of what it is compared with, as far as they are there.

        The rows are those of report.jsonl, on noise by which nothing was chosen; the Fréchet distances
        of them are shown.
        """
        rows = selection.read_rows(read_json_lines(self.workdir / REPORT_ROWS, 'protocol'))
        distances = {
            name: None for row in rows for name in (summary.main_score(row), *row.get('others', {}))
        }
        columns = {key: f'protocol.{key}' for key in ('sampler', 'evaluations')}
        columns |= {key: key for name in distances for key in (name, f'{name}_std')}
        return Table(rows, {'label': 'label', **columns})

    def plot_progress(self) -> Figure:
        """Draws the score of each candidate, and the best so far (lcsc.plots.progress)."""
        searched, random = (
            generations.read_candidates(self.workdir, name) for name in (SEARCH, RANDOM)
        )
        if not searched:
            raise UserError(f'{self.workdir} has scored no candidate yet')
        return plots.progress(searched, random, self.score, self.settings.is_descent)

    def plot_coefficients(self, stage: int | None = None) -> Figure:
        """Draws the coefficients of the winner over training (lcsc.plots.coefficients).

        `stage` is the length in steps of a stage of the curriculum, to mark the stages. Raises
        UserError before a winner is chosen.
        """
        chosen, steps = self._chosen(), self.origin['steps']
        ema_star = chosen.choices[EMA_STAR]
        return plots.coefficients(
            steps,
            chosen.choices[LCSC].coefficients.reshape(-1, len(steps)),
            self.origin['groups'],
            ema_star.coefficients.reshape(-1, len(steps))[0],
            ema_star.identity(EMA_STAR).label,
            stage,
            runs=self.origin.get('runs', ()),
        )

    def plot_landscape(self) -> Figure:
        """Draws the score over the plane through three snapshots (lcsc.plots.landscape).

        Raises UserError if the search has no such map: config.controls.landscape asks for it.
        """
        if not (self.workdir / LANDSCAPE).exists():
            raise UserError(
                f'{self.workdir} has no {LANDSCAPE}: a search makes it with '
                '--config.controls.landscape=N, for N x N combinations'
            )
        steps = self.origin['steps']
        grid = plots.plane(len(steps), self.settings.controls.landscape)
        scores = plots.read_landscape(self.workdir, grid)
        return plots.landscape(grid, scores, steps, self.score)

    @property
    def groups(self) -> list[str]:
        """The names of the groups of weights (lcsc.space.names)."""
        return space.names(self.origin['groups'])

    @property
    def score(self) -> str:
        """What the search minimises, as the pictures name it."""
        rows = read_json_lines(self.workdir / REPORT_ROWS, 'protocol')
        distance = f'Fréchet distance of {self.settings.evaluation.extractor}'
        return self.settings.budget.metric or (summary.main_score(rows[0]) if rows else distance)

    def _chosen(self) -> selection.Chosen:
        if not (self.workdir / CHOSEN).exists():
            raise UserError(
                f'{self.workdir} has chosen no winner yet: the search is under way, or was stopped; '
                'the same command continues it'
            )
        return selection.load_chosen(self.workdir / CHOSEN)

    def _facts(self) -> list[tuple[str, str]]:
        """Returns (name, text) of each line of what this is."""
        settings, steps, groups = self.settings, self.origin['steps'], self.groups
        budget, rows, report = settings.budget, self.candidates(), self.report()
        of = f'{self.origin["workdir"]}, {weights_label(self.origin["ema"])}'
        best = f', the best {np.nanmin(rows.column("score")):.4g} on search noise' if rows else ''
        generation = rows[-1]['generation'] if rows else 0
        scores = [
            f'{summary.score(row)} {row["label"]}'
            for row in report
            if row['protocol']['sampler'] == budget.sampler
        ]
        state = 'finished' if (self.workdir / REPORT).exists() else 'not finished'
        return [
            ('search', f'{settings.search["method"]}; minimises {self.score} of {budget.sampler}'),
            ('snapshots', f'{len(steps)} of {of}; steps {steps[0]:,} to {steps[-1]:,}'),
            ('groups', ', '.join(groups)),
            ('candidates', f'{len(rows):,} scored{best}'),
            ('state', f'{state}; generation {generation} of {budget.generations}'),
            *(('report' if i == 0 else '', text) for i, text in enumerate(scores)),
        ]


def open_search(workdir: str | epath.Path) -> SearchFolder:
    """Returns the search in a folder, whether it is finished or not.

    Raises UserError if the folder is none of a search, or if the search has not begun.
    """
    workdir = epath.Path(expanded(workdir))
    config = read_config(workdir, SEARCH_CONFIG)
    # Earlier versions kept what a search combines with its result alone.
    kept = [name for name in (SNAPSHOTS, COEFFICIENTS) if (workdir / name).exists()]
    if not kept:
        raise UserError(f'{workdir} has no {SNAPSHOTS}: its search did not begin')
    origin = read_record(workdir, kept[0], dict)
    return SearchFolder(workdir=workdir, settings=parse_search(config), origin=origin)
