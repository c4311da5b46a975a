"""The tables and sentences of a study of LCSC, as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cm_jax.reports.study_numbers import (
    Columns,
    Model,
    Score,
    averages,
    columns,
    ema_star,
    found,
    losses,
    ratios,
)
from cm_jax.reports.study_searches import EVOLUTION, GRADIENT_TWO, METHODS, Use

COMPARED = {  # the uses whose methods have tables
    'consistency_1': 'A consistency model (ECT), 1 evaluation',
    'consistency_2': 'A consistency model (ECT), 2 evaluations',
    'diffusion_9': 'A diffusion model (EDM), 9 evaluations',
}


def text(*values: float | None) -> str:
    """Returns '8.58 ± 0.37 ± 0.11': a mean and its spreads, without those that are None.

    There are three decimals, instead of two, where the mean is below 1.
    """
    decimals = 3 if values[0] is not None and abs(values[0]) < 1 else 2
    return ' ± '.join(f'{value:.{decimals}f}' for value in values if value is not None)


def main_text(score: Score) -> str:
    """Returns the mean with its spreads over noise sets and over search seeds."""
    return text(score.mean, score.std_noise, score.std_search)


def other_text(score: Score) -> str:
    """Returns the mean with its spread over search seeds, or over noise sets where there is one."""
    spread = score.std_noise if score.std_search is None else score.std_search
    return text(score.mean, spread)


def millions(cost: float) -> str:
    """Returns a cost in million network evaluations."""
    return f'{cost / 1e6:.3f}'


def markdown(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Returns a Markdown table."""
    lines = [header, ['---'] * len(header), *rows]
    return ''.join(f'| {" | ".join(map(str, line))} |\n' for line in lines)


def header(named: Columns, of: Model) -> list[str]:
    """Returns the headers of the columns of numbers; distances have their number of samples."""
    labels = {name: protocol['score'] for name, protocol in of.protocols.items()}
    return [
        f'`{labels[named.main]}`, mean ± noise ± search',
        *(f'`{labels[name]}`, never searched' for name in named.never),
        *(f'`{labels[name]}`, searched by {METHODS[GRADIENT_TWO]}' for name in named.some),
        *(f'`{name}`' for name in named.qualities),
    ]


def cells(named: Columns, of: Model) -> list[str]:
    """Returns the numbers of a model, column by column."""
    rest = [other_text(of.scores[name]) for name in named.all[1:]]
    return [main_text(of.scores[named.main]), *rest]


def cost_text(costs: Mapping[str, float] | None) -> str:
    """Returns the cost of a search, '0.170 + 0.036': of searching and of selecting; '' without one."""
    return '' if costs is None else ' + '.join(millions(cost) for cost in costs.values())


def comparison(title: str, use: Use) -> str:
    """Returns the section of one use: a table with its averages and methods, and sentences on it."""
    named, models = columns(use), [*averages(use), *(found(use, method) for method in use)]
    rows = [[of.label, *cells(named, of), cost_text(of.costs)] for of in models]
    table = markdown(['weights', *header(named, models[0]), 'cost'], rows)
    base, counted = use[EVOLUTION], use[EVOLUTION].reports[0]['cost']
    scanned = (
        f'; the windows and BEMA averages took {millions(counted["baselines"])} to choose'
        if 'baselines' in counted
        else ''
    )
    sentences = [
        f'{base.snapshots} snapshots, search seeds: {len(base.paths)}. Costs are in million network '
        f'evaluations of an image, those of searching + of selecting{scanned}. Columns after the first '
        'have the spread over search seeds, or over noise where there is one result.',
        wins(use),
        ratio_sentence(use),
        loss_sentence(use),
    ]
    return f'### {title}\n\n{table}\n' + '\n\n'.join(sentences) + '\n'


def wins(use: Use) -> str:
    """Returns a sentence: in how many searches each method's distance is at most that of EMA*."""
    main = columns(use).main
    best, parts = ema_star(use).scores[main].mean, []
    for method in use:
        values = np.array(found(use, method).scores[main].values)
        parts.append(f'{METHODS[method]} in {(values <= best).sum()} of {len(values)}')
    return f'At or below EMA* in `{main}`: {"; ".join(parts)}.'


def ratio_sentence(use: Use) -> str:
    """Returns a sentence: 'gradient (two spaces)' over evolution, in each distance."""
    of = ratios(use)
    named = columns(use)
    what = dict.fromkeys(named.never, 'never searched') | dict.fromkeys(
        named.some, 'searched by it'
    )
    parts = [
        f'`{name}` ({what.get(name, "searched by both")}) '
        + ' ± '.join(f'{v:.2f}' for v in (score.mean, score.std_search) if v is not None)
        for name, score in of.items()
    ]
    return f'{METHODS[GRADIENT_TWO]} / {METHODS[EVOLUTION]}, seed by seed: {", ".join(parts)}.'


def loss_sentence(use: Use) -> str:
    """Returns a sentence: which methods gain where all search, and lose where none does."""
    main, lost = columns(use).main, losses(use)
    if not lost:
        return (
            f'No method that gains on EMA* in `{main}` loses to it in a distance never searched, '
            'by the means.'
        )
    parts = [
        f'{METHODS[method]} (in {", ".join(f"`{name}`" for name in names)})'
        for method, names in lost.items()
    ]
    return (
        f'Flag: by the means these gain on EMA* in `{main}` and lose to it in a distance never '
        f'searched: {"; ".join(parts)}.'
    )


def fewer_evaluations(at_9: Use, at_15: Use) -> str:
    """Returns the section of the diffusion model: the methods at 9 evaluations, and EMA* at 15."""
    named, best = columns(at_9), ema_star(at_15)
    models = [best, ema_star(at_9), *(found(at_9, method) for method in at_9)]
    distances = named._replace(qualities=[])
    rows = [[of.label, of.evaluations, *cells(distances, of)] for of in models]
    table = markdown(['weights', 'evaluations', *header(distances, best)], rows)
    parts = []
    for name in distances.all:
        ahead = [of.label for of in models[2:] if of.scores[name].mean <= best.scores[name].mean]
        parts.append(f'in `{name}` {", ".join(ahead) or "none"}')
    sentence = f'At 9 evaluations at or below EMA* at 15, by the means: {"; ".join(parts)}.'
    return (
        f'### The diffusion model: a search at 9 evaluations, EMA* at 15\n\n{table}\n{sentence}\n'
    )


def cost_row(
    name: str, use: Use, of: Model, named: Columns, before: int = 0
) -> tuple[list[str], float, float]:
    """Returns a row of `costs`: its cells up to the costs, and the costs of training and of search.

    `before`, in network evaluations, is the cost of an earlier training run that this one started from.
    """
    training = before + use[EVOLUTION].training_cost()
    return [name, *cells(named, of)], training, sum((of.costs or {}).values())


def costs(
    title: str, named: Columns, of: Model, rows: Sequence[tuple[list[str], float, float]]
) -> str:
    """Returns a section with a table of `cost_row`s: distances beside what they cost.

    The last column is the whole cost of the first row, divided by that of the row.
    """
    first_cost = sum(rows[0][1:])
    lines = [
        [*start, millions(training), millions(search), f'{first_cost / (training + search):.2f}']
        for start, training, search in rows
    ]
    last = ['training', 'search', "first row's cost over this one's"]
    table = markdown(['weights', *header(named, of), *last], lines)
    return f'### {title}\n\n{table}\nCosts in million network evaluations of an image.\n'


def less_training(uses: Mapping[str, Use]) -> str:
    """Returns the section of use (a): a short run and a search, and a long run's EMA*."""
    long, cut = uses['long'], uses['cut']
    named, best = columns(cut), ema_star(long)
    rows = [cost_row('long run, EMA*', long, best, named)]
    rows.append(cost_row('short run, EMA*', cut, ema_star(cut), named))
    rows += [cost_row(f'short run, {METHODS[m]}', cut, found(cut, m), named) for m in cut]
    return costs('Use (a): less training, and a search', named, best, rows)


def trained_on(uses: Mapping[str, Use]) -> str:
    """Returns the section of use (b): a finished run, trained on for a little and searched."""
    finished, more = uses['consistency_1'], uses['more']
    named, best, before = columns(more), ema_star(finished), finished[EVOLUTION].training_cost()
    rows = [cost_row('finished run, EMA*', finished, best, named)]
    rows.append(cost_row('trained on, EMA*', more, ema_star(more), named, before))
    rows += [
        cost_row(f'trained on, {METHODS[m]}', more, found(more, m), named, before) for m in more
    ]
    title = 'Use (b): a finished run, trained on for a little and searched'
    return costs(title, named, best, rows)


def tables(uses: Mapping[str, Use]) -> str:
    """Returns all sections of study.md; `uses` are the searches of study_searches.USES."""
    parts = [comparison(title, uses[name]) for name, title in COMPARED.items()]
    parts.append(fewer_evaluations(uses['diffusion_9'], uses['diffusion_15']))
    return '\n'.join([*parts, less_training(uses), trained_on(uses)])
