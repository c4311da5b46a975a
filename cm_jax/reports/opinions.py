"""Second opinions: what a report shows in the feature spaces that a search used, and in the others.

A search gains in the space that it searches, if only because it was chosen there. Whether its result is
better is seen in spaces that it did not use: the same images, measured by another network.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from cm_jax.metrics import named
from cm_jax.reports.rows import Entry, counted, number, protocols, spaces, values

PARTS = named.PARTS[:2]  # precision and recall, where they were measured
STARRED = '* in a space that the search of this row used; the other numbers are second opinions'


class Column(NamedTuple):
    """A column of the table: a number of the rows, measured in a feature space."""

    name: str  # of the number: 'fd_lenet', 'recall_pixel'
    space: str  # the score of the space: 'fd_lenet', 'fd_pixel'

    @property
    def higher_is_better(self) -> bool:
        """Whether the best number of the column is the highest."""
        return self.name != self.space


def columns(entries: Sequence[Entry]) -> list[Column]:
    """Returns the columns of the table: a score a space, then precision and recall where they are."""
    scores = spaces(entries)
    parts = [
        Column(f'{part}{score.removeprefix("fd") if score != "fid" else ""}', score)
        for score in scores
        for part in PARTS
    ]
    measured = {name for entry in entries if entry.model == 'lcsc' for name in entry.row}
    return [Column(score, score) for score in scores] + [c for c in parts if c.name in measured]


def cell(entry: Entry, column: Column) -> str:
    """Returns a number of a row for the table, '8.60 ± 0.57*' where the row's own search used it."""
    star = '*' if column.space in entry.searched else ''
    return number(entry.row, column.name) + star


def best(entries: Sequence[Entry], column: Column) -> Entry | None:
    """Returns the row with the best number of a column, the first of several; None if there is none."""
    sign = -1 if column.higher_is_better else 1
    measured = [entry for entry in entries if entry.row.get(column.name) is not None]
    return min(measured, key=lambda entry: sign * entry.row[column.name], default=None)


def words(entries: Sequence[Entry]) -> list[str]:
    """Returns a sentence for each search: which spaces it used, and which it did not."""
    found = {}
    for entry in entries:
        if entry.model == 'lcsc':
            second = [score for score in protocols(entry.row) if score not in entry.searched]
            found[entry.name] = f'{entry.name} searched in {_listed(entry.searched)}' + (
                f', and did not use {_listed(second)}.'
                if second
                else '; nothing else was measured.'
            )
    return list(found.values())


def loses_elsewhere(lcsc: Entry, average: Entry) -> str | None:
    """Returns a sentence if LCSC gains in a space that its search used and loses in another.

    It is compared with the best average of the same sampler, by the means over the seeds of the report
    noise: a lower one is a gain, a higher one a loss. Otherwise returns None.
    """
    means = _means(lcsc, average)
    gains = [s for s, (own, other) in means.items() if s in lcsc.searched and own < other]
    losses = [s for s, (own, other) in means.items() if s not in lcsc.searched and own > other]
    if not (gains and losses):
        return None
    return (
        f'With {counted(lcsc.evaluations, "evaluation")}, {lcsc.name} is better than the best average, '
        f'{average.weights}, where it searched, in {_compared(means, gains)}, and worse where it did '
        f'not, in {_compared(means, losses)}.'
    )


def loses_with_another_sampler(lcsc: Entry, average: Entry) -> str | None:
    """Returns a sentence if LCSC loses where it searched, with a sampler that its search did not use.

    It is compared as in `loses_elsewhere`. Otherwise returns None.
    """
    searched = lcsc.report.sampler if lcsc.report else lcsc.sampler
    means = _means(lcsc, average)
    losses = [s for s, (own, other) in means.items() if own > other]
    if lcsc.sampler == searched or not {*losses} & {*lcsc.searched}:
        return None
    return (
        f'{lcsc.name} searched with {searched}. With {lcsc.sampler} it is worse than the '
        f'best average, {average.weights}, in {_compared(means, losses)}.'
    )


def flag(entry: Entry, entries: Sequence[Entry]) -> str | None:
    """Returns what is to be said against a row of a report's table, if it is of LCSC."""
    if entry.model != 'lcsc':
        return None
    (average,) = (e for e in entries if e.model == 'ema' and e.sampler == entry.sampler)
    return loses_elsewhere(entry, average) or loses_with_another_sampler(entry, average)


def _means(lcsc: Entry, average: Entry) -> dict[str, tuple[float, float]]:
    """Returns the scores that both were measured in, with the means of the two over the seeds."""

    def mean(entry: Entry, score: str) -> float:
        return float(np.mean(np.array(values(entry.row, score), float)))

    shared = [score for score in protocols(lcsc.row) if score in protocols(average.row)]
    return {score: (mean(lcsc, score), mean(average, score)) for score in shared}


def _compared(means: dict[str, tuple[float, float]], scores: Sequence[str]) -> str:
    """Returns 'fd_lenet (5.9 against 7.5) and fd_pixel (0.4 against 0.5)'."""
    return _listed([f'{s} ({means[s][0]:.4g} against {means[s][1]:.4g})' for s in scores])


def flags(entries: Sequence[Entry]) -> list[str]:
    """Returns the sentences of all rows that have one."""
    return [text for entry in entries if (text := flag(entry, entries))]


def results(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Returns the rows of results.json.

    `search`, `searched` and `flag` are the name of the row's own search, the spaces that it used and
    what is to be said against the row; None for rows of other models and where nothing is to be said.
    """
    names = [column.name for column in columns(entries)]
    return [
        {
            'model': entry.model,
            'search': entry.search if entry.model == 'lcsc' else None,
            'searched': list(entry.searched) or None,
            'steps': entry.steps,
            'evaluations': entry.evaluations,
            **{key: entry.row.get(key) for name in names for key in (name, f'{name}_std')},
            'samples': entry.row['protocol']['samples'],
            'seeds': entry.row['protocol']['seeds'],
            'flag': flag(entry, entries),
        }
        for entry in entries
    ]


def table(entries: Sequence[Entry]) -> str:
    """Returns the rows as aligned text for the terminal, and below them what is to be said."""
    shown = columns(entries)
    lines = [('model', 'steps', 'evaluations', *(c.name for c in shown))]
    for e in entries:
        lines.append((_label(e), str(e.steps), str(e.evaluations), *(cell(e, c) for c in shown)))
    widths = [max(map(len, column)) for column in zip(*lines)]
    text = [
        '  '.join(
            f'{cell:>{width}}' if i in (1, 2) else f'{cell:<{width}}'
            for i, (cell, width) in enumerate(zip(line, widths))
        ).rstrip()
        for line in lines
    ]
    return '\n'.join([*text, '', STARRED, *words(entries), *flags(entries)])


def _label(entry: Entry) -> str:
    """Returns a row's model with its weights or sampler, as short as a terminal needs it."""
    details = {'teacher': entry.sampler, 'ect': 'last weights', 'ema': entry.weights}
    return ', '.join([entry.name, *filter(None, [details.get(entry.model)])])


def _listed(names: Sequence[str]) -> str:
    """Returns 'a', 'a and b', 'a, b and c'."""
    *most, last = names
    return f'{", ".join(most)} and {last}' if most else last
