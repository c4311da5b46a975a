"""The parts of a page that are about one search: its plots, its cost, and on which noise it chose."""

from typing import NamedTuple

from cm_jax.lcsc.opened import SearchFolder
from cm_jax.reports import plots
from cm_jax.reports.elements import figure
from cm_jax.reports.searches import Search
from cm_jax.run_folder import LANDSCAPE
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


def draw_progress(folder: SearchFolder, name: str) -> str:
    """Returns the progress of a search as an <svg> element, finished or not; `name` is the search's."""
    return plots.to_svg(folder.plot_progress(), f'search {name}')


def draw_search(search: Search, metric: str, stage: int | None) -> SearchPart:
    """Returns what a page shows of a search whose main score is `metric`.

    `stage` is the length in steps of a stage of the curriculum of the run; None if it has no stages.
    """
    name, folder, landscape = search.report.search, search.folder, ''
    if (folder.workdir / LANDSCAPE).exists():
        landscape = plots.to_svg(folder.plot_landscape(), f'landscape {name}')
    return SearchPart(
        name=f'LCSC ({name})',
        settings=search.settings,
        metric=minimised(search.settings.budget, metric),
        candidates=len(folder.candidates()),
        snapshots=len(search.steps),
        progress=draw_progress(folder, name),
        coefficients=plots.to_svg(folder.plot_coefficients(stage), f'coefficients {name}'),
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
    candidates = len(search.folder.candidates())
    return (
        f'no training; {candidates:,} candidates; network evaluations of an image{back}: '
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
