"""The tables of a report's page, and in words which spaces were searched and which were not."""

import html
from collections.abc import Callable, Sequence

from cm_jax.reports import elements
from cm_jax.reports.elements import numbers
from cm_jax.reports.opinions import STARRED, best, cell, columns, flags, words
from cm_jax.reports.rows import Entry, number, what


def model(entry: Entry) -> tuple[str, str]:
    """Returns the name of a row of a comparison, and in a few words what it is."""
    return entry.name, what(entry)


def table(entries: Sequence[Entry], describe: Callable[[Entry], tuple[str, str]] = model) -> str:
    """Returns the table of scores; `describe` gives the name of a row and a line below it."""
    shown = columns(entries)
    by_steps = {e.steps: [other for other in entries if other.steps == e.steps] for e in entries}
    body = ''
    for i, e in enumerate(entries):
        name, detail = map(html.escape, describe(e))
        group = ' group' if i and e.steps != entries[i - 1].steps else ''
        cells = numbers('td', (e.steps, e.evaluations))
        for column in shown:
            is_best = ' best' if best(by_steps[e.steps], column) is e else ''
            cells += f'<td class="n{is_best}">{html.escape(cell(e, column))}</td>'
        body += (
            f'<tr class="{e.model}{group}"><th scope="row"><span class="dot {e.model}"></span>'
            f'{name}<small>{detail}</small></th>{cells}</tr>'
        )
    heads = numbers('th', ('Steps', 'Evaluations', *(column.name for column in shown)))
    return (
        '<div class="wide"><table class="scores"><thead><tr><th scope="col">Model</th>'
        f'{heads.replace("_", "_<wbr>")}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def opinions(entries: Sequence[Entry]) -> str:
    """Returns what stands below the table: what a star means, which spaces were used, who lost."""
    sentences = ' '.join([f'{STARRED}.', *words(entries)])
    warnings = ''.join(map(elements.flag, flags(entries)))
    return elements.soft(sentences) + warnings


def averages(entries: Sequence[Entry]) -> str:
    """Returns a folded table with the main score of every average with every sampler."""
    samplers = list(dict.fromkeys(e.sampler for e in entries))
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for e in entries:
        rows.setdefault((e.weights, e.search), {})[e.sampler] = number(e.row, e.metric)
    labels = [label for label, _ in rows]
    body = ''
    for (label, search), scores in rows.items():
        name = f'{label}, {search}' if labels.count(label) > 1 else label  # each over its snapshots
        cells = numbers('td', [scores.get(spec, '–') for spec in samplers])
        body += f'<tr><th scope="row">{html.escape(name)}</th>{cells}</tr>'
    return (
        '<details><summary>All averages that the best one was chosen from</summary><div class="wide">'
        f'<table><thead><tr><th scope="col">Average</th>{numbers("th", samplers)}</tr></thead>'
        f'<tbody>{body}</tbody>'
        '</table><p class="soft"><b>ema</b>: kept at every step of training, with its rate. '
        '<b>ema*</b>: the best EMA profile over the checkpoints, its rate per checkpoint chosen on the '
        'selection noise, by what the search minimises. <b>uniform</b>: the mean of the checkpoints. '
        '<b>window</b>, <b>bema</b>: the best mean of successive checkpoints, and the best average '
        'with its bias corrected, chosen likewise.</p></div></details>'
    )
