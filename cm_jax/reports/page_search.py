"""The parts of a report's page that are about one search: its plots, and on which noise it chose."""

import html
from collections.abc import Sequence
from typing import NamedTuple

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


def minimised(budget: Budget, score: str) -> str:
    """Returns what a search minimises, for a sentence; `score` is that of a search without a metric."""
    relative = ', each in units of the best starting average' if budget.units == 'relative' else ''
    return f'{budget.metric or score}{relative}'


def figure(svg: str, title: str, caption: str) -> str:
    """Returns a plot with its title and caption."""
    return (
        f'<figure><div role="img" aria-label="{html.escape(title)}">{svg}</div>'
        f'<figcaption><b>{html.escape(title)}.</b> {html.escape(caption)}</figcaption></figure>'
    )


def searching(part: SearchPart) -> str:
    """Returns the plots of a search."""
    noise = (
        'Each of the others is a step down the derivative, scored on noise of its own: what is between '
        'two steps is noise too, and the lowest is not the best.'
        if part.settings.is_descent
        else 'All are scored on the same noise.'
    )
    return figure(
        part.progress,
        f'{part.name}: progress of the search',
        f'{part.candidates:,} candidates by {part.metric}; the first are the last checkpoint, EMA '
        f'profiles and the uniform average. {noise} Fewer samples and other noise than in the table: '
        'not to be compared with it.',
    ) + figure(
        part.coefficients,
        f'{part.name}: coefficients over training',
        f'The weights are the sum of {part.snapshots} checkpoints times these coefficients, which sum '
        'to 1. The line is the EMA profile that did best on the selection noise.',
    )


def noises(parts: Sequence[SearchPart]) -> dict[str, str]:
    """Returns, by the names of the searches, what each minimised and on which noise."""
    found = {}
    for part in parts:
        budget = part.settings.budget
        each = (
            'a candidate, new ones for each step of the descent'
            if part.settings.is_descent
            else 'a candidate'
        )
        found[part.name] = (
            f'minimises {part.metric}, with {budget.sampler}. Search noise: seed {budget.seed}, '
            f'{budget.samples:,} samples {each}. Selection noise: seeds '
            f'{", ".join(map(str, budget.selection_seeds))}, as many samples: {budget.finalists} '
            'finalists, and the EMA profiles'
        )
    return found
