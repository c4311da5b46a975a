"""The parts of a page that are about one search: its plots, its cost, and on which noise it chose."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from cm_jax.lcsc import plots as search_plots
from cm_jax.lcsc.identity import EMA_STAR
from cm_jax.reports import plots
from cm_jax.reports.elements import figure
from cm_jax.reports.searches import Search
from cm_jax.settings import Budget, SearchSettings


class SearchPart(NamedTuple):
    """A search on the page."""

    name: str  # as its rows are named: 'LCSC (gradient)'
    settings: SearchSettings
    metric: str  # what it minimised
    candidates: int  # how many it scored
    snapshots: int  # how many it combined
    progress: str  # an <svg> element
    coefficients: str  # an <svg> element
    landscape: str = ''  # an <svg> element, where the search has drawn one


def minimised(budget: Budget, score: str) -> str:
    """Returns what a search minimises, for a sentence; `score` is that of a search without a metric."""
    relative = ', each in units of the best starting average' if budget.units == 'relative' else ''
    return f'{budget.metric or score}{relative}'


def draw_progress(
    rows: Sequence[Mapping[str, Any]],
    random: Sequence[Mapping[str, Any]],
    settings: SearchSettings,
    score: str,
    name: str,
) -> str:
    """Returns the progress of a search as an <svg> element, finished or not.

    The rows are those of `generations.read_candidates`; `name` is the search's.
    """
    metric = settings.budget.metric or score
    drawn = search_plots.progress(rows, random, metric, settings.is_descent)
    return plots.to_svg(drawn, f'search {name}')


def draw_search(search: Search, metric: str, stage: int | None) -> SearchPart:
    """Returns what a page shows of a search whose main score is `metric`.

    `stage` is the length in steps of a stage of the curriculum of the run; None if it has no stages.
    """
    name, settings = search.report.search, search.settings
    coefficients = search_plots.coefficients(
        search.steps,
        np.reshape(search.coefficients, (-1, len(search.steps))),
        search.groups,
        search.average(EMA_STAR),
        search.ema_star,
        stage,
        search.runs,
    )
    landscape = ''
    if search.landscape is not None:
        grid = search_plots.plane(len(search.steps), len(search.landscape))
        score = settings.budget.metric or metric
        drawn = search_plots.landscape(grid, search.landscape, search.steps, score)
        landscape = plots.to_svg(drawn, f'landscape {name}')
    return SearchPart(
        name=f'LCSC ({name})',
        settings=settings,
        metric=minimised(settings.budget, metric),
        candidates=len(search.candidates),
        snapshots=len(search.steps),
        progress=draw_progress(search.candidates, search.random_candidates, settings, metric, name),
        coefficients=plots.to_svg(coefficients, f'coefficients {name}'),
        landscape=landscape,
    )


def progress_figure(svg: str, name: str, candidates: int, metric: str, is_descent: bool) -> str:
    """Returns the plot of a search's progress with its caption."""
    noise = (
        'Each of the others is a step down the derivative, scored on noise of its own: what is between '
        'two steps is noise too, and the lowest is not the best.'
        if is_descent
        else 'All are scored on the same noise.'
    )
    return figure(
        svg,
        f'{name}: progress of the search',
        f'{candidates:,} candidates by {metric}; the first are the last checkpoint, EMA '
        f'profiles and the uniform average. {noise} Fewer samples and other noise than in the table: '
        'not to be compared with it.',
    )


def searching(part: SearchPart) -> str:
    """Returns the plots of a search."""
    descent = part.settings.is_descent
    shown = progress_figure(part.progress, part.name, part.candidates, part.metric, descent)
    shown += figure(
        part.coefficients,
        f'{part.name}: coefficients over training',
        f'The weights are the sum of {part.snapshots} checkpoints times these coefficients, which sum '
        'to 1. The line is the EMA profile that did best on the selection noise.',
    )
    if part.landscape:
        shown += figure(
            part.landscape,
            f'{part.name}: landscape',
            f'{part.metric} on search noise over the plane through the first, the middle and the last '
            'checkpoint. At the corners of the triangle are these three, and inside it are averages of '
            'them; outside it a coefficient is negative.',
        )
    return shown


def search_cost(search: Search) -> str:
    """Returns what a search cost: candidates, and network evaluations of an image."""
    parts = [f'{number:,} for {what}' for what, number in search.cost.items()]
    back = ' (a pass back counts 2)' if search.settings.is_descent else ''
    return (
        f'no training; {len(search.candidates):,} candidates; network evaluations of an image{back}: '
        f'{", ".join(parts)}'
    )


def noises(settings: SearchSettings, metric: str) -> str:
    """Returns what a search minimises, and on which noise it searched and chose."""
    budget = settings.budget
    each = (
        'a candidate, new ones for each step of the descent'
        if settings.is_descent
        else 'a candidate'
    )
    return (
        f'minimises {metric}, with {budget.sampler}. Search noise: seed {budget.seed}, '
        f'{budget.samples:,} samples {each}. Selection noise: seeds '
        f'{", ".join(map(str, budget.selection_seeds))}, as many samples: {budget.finalists} '
        'finalists, and the EMA profiles'
    )
