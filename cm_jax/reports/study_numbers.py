"""The numbers of a study of LCSC: each model's scores in each feature space, and what it cost.

A model that was searched has a result for each search seed, and an average has one. Two spreads are
given: the standard deviation over the sets of report noise (the root of the variance's mean over the
searches), and that over the search seeds.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from cm_jax.errors import UserError
from cm_jax.lcsc.identity import (
    BEMA,
    EMA,
    EMA_STAR,
    LAST,
    LCSC,
    POSTHOC,
    UNIFORM,
    WINDOW,
)
from cm_jax.metrics.protocol import COMPARABLE
from cm_jax.reports.study_searches import EVOLUTION, GRADIENT_TWO, METHODS, Use

AVERAGES = (LAST, EMA, EMA_STAR, POSTHOC, WINDOW, BEMA, UNIFORM)  # in the order of the tables
QUALITIES = ('precision_', 'recall_')  # how the names of numbers begin of which more is better


class Score(NamedTuple):
    """One number of a model: its mean, and its spreads over noise sets and over search seeds.

    A spread is None where there is one noise set, or one result. `values` are the means of each search.
    """

    mean: float
    std_noise: float | None
    std_search: float | None
    values: list[float]


class Model(NamedTuple):
    """A row of the tables: an average of weights, or what a method found."""

    method: str  # a key of METHODS, or the kind of an average (lcsc.identity)
    label: str
    evaluations: int  # of the sampler
    scores: dict[str, Score]  # by their names, as 'fd_lenet', the first that of the report
    costs: dict[str, float] | None  # of a search, by study_searches.COSTS
    protocols: dict[str, dict[str, Any]]  # of each distance, what must be the same elsewhere

    def plain(self) -> dict[str, Any]:
        """Returns the model as JSON values."""
        scores = {name: score._asdict() for name, score in self.scores.items()}
        return self._asdict() | {'scores': scores}


class Columns(NamedTuple):
    """The numbers of a use: what was searched by all, by none and by some, and the qualities."""

    main: str
    never: list[str]
    some: list[str]
    qualities: list[str]

    @property
    def all(self) -> list[str]:
        """The names in the order of the tables."""
        return [self.main, *self.never, *self.some, *self.qualities]


def protocols(row: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns the protocol of each distance of a row, the first that of the report's score."""
    first = row['protocol']
    others = {name: other['protocol'] for name, other in row.get('others', {}).items()}
    return {first['score'].rpartition('_')[0]: first, **others}


def score(rows: Sequence[Mapping[str, Any]], name: str) -> Score:
    """Returns one number of a model, from its rows, one of each search.

    Raises UserError if a row has no such number.
    """
    for row in rows:
        if f'{name}_std' not in row:
            raise UserError(
                f'the row of {row["label"]} in a report has no {name}, which others of the study have: '
                'its search is of an earlier version or has other feature spaces'
            )
    means = [math.nan if row[name] is None else row[name] for row in rows]
    stds = [row[f'{name}_std'] for row in rows]
    return Score(
        mean=float(np.mean(means)),
        std_noise=None if None in stds else float(np.sqrt(np.mean(np.square(stds)))),
        std_search=float(np.std(means, ddof=1)) if len(means) > 1 else None,
        values=means,
    )


def model(
    rows: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    method: str,
    label: str,
    costs: dict[str, float] | None = None,
) -> Model:
    """Returns the numbers of a model by these names, from its rows, one of each search."""
    return Model(
        method=method,
        label=label,
        evaluations=rows[0]['protocol']['evaluations'],
        scores={name: score(rows, name) for name in names},
        costs=costs,
        protocols={
            name: {key: protocol[key] for key in COMPARABLE}
            for name, protocol in protocols(rows[0]).items()
        },
    )


def columns(use: Use) -> Columns:
    """Returns the names of the numbers of a use's reports."""
    row = use[EVOLUTION].row(LCSC)
    main, *others = protocols(row)
    searched = set.union(*(searches.searched(main) for searches in use.values()))
    return Columns(
        main=main,
        never=[name for name in others if name not in searched],
        some=[name for name in others if name in searched],
        qualities=[key for key in row if key.startswith(QUALITIES) and f'{key}_std' in row],
    )


def averages(use: Use) -> list[Model]:
    """Returns the averages of a use, which need no search: those in the first report of evolution."""
    searches, names = use[EVOLUTION], columns(use).all
    rows = searches.of_sampler(searches.reports[0])
    ordered = [row for kind in AVERAGES for row in rows if row['kind'] == kind]
    return [model([row], names, row['kind'], row['label']) for row in ordered]


def ema_star(use: Use) -> Model:
    """Returns EMA* of a use. Raises UserError if the first report of evolution has none."""
    row = use[EVOLUTION].row(EMA_STAR)
    return model([row], columns(use).all, EMA_STAR, row['label'])


def found(use: Use, method: str) -> Model:
    """Returns what a method of a use found."""
    searches = use[method]
    rows, names = searches.rows(LCSC), columns(use).all
    return model(rows, names, method, METHODS[method], searches.costs())


def ratios(use: Use) -> dict[str, Score]:
    """Returns 'gradient (two spaces)' over evolution in each distance, search seed by search seed."""
    named, (two, one) = columns(use), (found(use, method) for method in (GRADIENT_TWO, EVOLUTION))
    ratio_of = {}
    for name in (named.main, *named.never, *named.some):
        values = np.divide(two.scores[name].values, one.scores[name].values)
        spread = float(values.std(ddof=1)) if len(values) > 1 else None
        ratio_of[name] = Score(float(values.mean()), None, spread, values.tolist())
    return ratio_of


def losses(use: Use) -> dict[str, list[str]]:
    """Returns, by method, the never searched distances in which it lies behind EMA*.

    There are only methods that are ahead of EMA* in the searched distance. What counts are the means.
    """
    named, best = columns(use), ema_star(use)
    lost: dict[str, list[str]] = {}
    for method in use:
        scores = found(use, method).scores
        if scores[named.main].mean < best.scores[named.main].mean:
            behind = [n for n in named.never if scores[n].mean > best.scores[n].mean]
            lost |= {method: behind} if behind else {}
    return lost
