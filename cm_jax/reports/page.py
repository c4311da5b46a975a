"""The page of a report: pure functions that turn scores, pictures and settings into HTML text.

The page needs no other file and runs no script: styles, curves and pictures are inside it. `render`
makes the whole page, and each other function returns one part of it.
"""

import base64
import html
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cm_jax.config import flatten
from cm_jax.evaluation.references import describe
from cm_jax.reports.rows import NAMES, Entry, by_sampler, compared, counted, what
from cm_jax.reports.style import CSS
from cm_jax.settings import SearchSettings


class Page(NamedTuple):
    """What the page shows."""

    dataset: str  # its name
    entries: Sequence[Entry]  # the rows of the table
    averages: Sequence[Entry]  # all averages of weights, of which the best one is in the table
    grids: Sequence[tuple[Entry, bytes]]  # a grid of samples of a row, as a PNG file
    grid_note: str  # how the samples of the grids were drawn
    plots: Mapping[str, str]  # <svg> elements by name: teacher, ect, search, coefficients
    stage: int | None  # the length in steps of a stage of ECT's curriculum; None is no stages
    search: SearchSettings
    candidates: int  # how many the search scored
    snapshots: int  # how many LCSC combined
    facts: Mapping[str, str]  # term -> description: what the runs cost, and where the page was made
    settings: Mapping[str, Mapping[str, Any]]  # title -> resolved config


def summary(page: Page) -> str:
    """Returns the result in one paragraph of plain words."""
    ects, emas, lcscs, teachers = (
        by_sampler(page.entries, m) for m in ('ect', 'ema', 'lcsc', 'teacher')
    )
    ect, ema, lcsc, n = ects[0], emas[0], lcscs[0], len(lcscs[0].row['values'])
    wins = sum(a < b for a, b in zip(lcsc.row['values'], ema.row['values']))
    text = [
        f'With {counted(lcsc.evaluations, "network evaluation")} a sample, LCSC (a searched linear '
        f'combination of {page.snapshots} checkpoints of one ECT run) reaches a Fréchet distance of '
        f'{lcsc.score}. That is {compared(lcsc, ema)} the best average of weights, {ema.weights}, at '
        f'{ema.score} (lower on {wins} of {counted(n, "noise seed")}), and {compared(lcsc, ect)} the '
        f'last weights of the run, at {ect.score}.'
    ]
    text += [
        f'With {a.evaluations} evaluations it is {a.value:.2f}, {compared(a, b)} the best average '
        f'there, at {b.value:.2f}.'
        for a, b in zip(lcscs[1:], emas[1:])
    ]
    costs = [f'{e.value:.2f} with {counted(e.evaluations, "evaluation")}' for e in teachers[::-1]]
    text.append(f'The diffusion teacher reaches {" and ".join(costs)}. Lower is better.')
    return ' '.join(text).replace(' ± ', '\u00a0±\u00a0').replace(' %', '\u00a0%')


def cards(page: Page) -> str:
    """Returns the four scores that matter most, in large print.

    They are those of LCSC, the best average and ECT with the fewest network evaluations, and that of
    the teacher with the most.
    """
    main_entries = [by_sampler(page.entries, m)[0] for m in ('lcsc', 'ema', 'ect')]
    main_entries.append(by_sampler(page.entries, 'teacher')[-1])
    return ''.join(
        f'<div class="card {e.model}"><span>{NAMES[e.model]}, {counted(e.evaluations, "evaluation")}'
        f'</span><b>{e.value:.2f}</b><span>{html.escape(what(e, page.snapshots))}</span></div>'
        for e in main_entries
    )


def table(page: Page) -> str:
    """Returns the table of scores, with the same rows as results.json."""
    heads = ('Steps', 'Evaluations', 'Samples × seeds', page.entries[0].metric)
    lowest = {e.steps: e for e in sorted(page.entries, key=lambda e: e.value, reverse=True)}
    body = ''
    for i, e in enumerate(page.entries):
        group = ' group' if i and e.steps != page.entries[i - 1].steps else ''
        group += ' best' if e is lowest[e.steps] else ''
        samples = f'{e.row["protocol"]["samples"]:,} × {len(e.row["protocol"]["seeds"])}'
        body += (
            f'<tr class="{e.model}{group}"><th scope="row"><span class="dot {e.model}"></span>'
            f'{NAMES[e.model]}<small>{html.escape(what(e, page.snapshots))}</small></th>'
            f'{numbers("td", (e.steps, e.evaluations, samples, e.score))}</tr>'
        )
    return (
        '<div class="wide"><table class="scores"><thead><tr><th scope="col">Model</th>'
        f'{numbers("th", heads)}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def numbers(tag: str, cells: Sequence[Any]) -> str:
    """Returns the cells of a table row, aligned to the right; `tag` is 'td' or 'th'."""
    return ''.join(f'<{tag} class="n">{html.escape(str(cell))}</{tag}>' for cell in cells)


def averages(page: Page) -> str:
    """Returns a folded table with the score of every average with every sampler."""
    samplers = list(dict.fromkeys(e.sampler for e in page.averages))
    scores = {(e.weights, e.sampler): e.score for e in page.averages}
    rows = ''.join(
        f'<tr><th scope="row">{html.escape(name)}</th>'
        f'{numbers("td", [scores[name, spec] for spec in samplers])}</tr>'
        for name in dict.fromkeys(e.weights for e in page.averages)
    )
    return (
        '<details><summary>All averages that the best one was chosen from</summary><div class="wide">'
        f'<table><thead><tr><th scope="col">Average</th>{numbers("th", samplers)}</tr></thead>'
        f'<tbody>{rows}</tbody>'
        '</table><p class="soft"><b>ema</b>: kept at every step of training, with its rate. '
        '<b>ema*</b>: the best EMA profile over the checkpoints, its rate per checkpoint chosen on the '
        'selection noise. <b>uniform</b>: the mean of the checkpoints.</p></div></details>'
    )


def grids(page: Page) -> str:
    """Returns the grids of samples, side by side."""
    figures = ''
    for e, png in page.grids:
        cost = counted(e.evaluations, 'evaluation')
        source = f'data:image/png;base64,{base64.b64encode(png).decode()}'
        figures += (
            f'<figure><img src="{source}" alt="Grid of samples: {NAMES[e.model]}, {cost}">'
            f'<figcaption><b>{NAMES[e.model]}</b>{cost}<br>{e.metric} {e.value:.2f}</figcaption>'
            '</figure>'
        )
    return f'<div class="grids">{figures}</div>'


def plot(page: Page, name: str, title: str, caption: str) -> str:
    """Returns the plot of this name with its title and caption."""
    return (
        f'<figure><div role="img" aria-label="{html.escape(title)}">{page.plots[name]}</div>'
        f'<figcaption><b>{html.escape(title)}.</b> {html.escape(caption)}</figcaption></figure>'
    )


def training(page: Page) -> str:
    """Returns the plots of the two training runs."""
    stages = (
        f' Bands: the stages of its curriculum, {page.stage:,} steps each.' if page.stage else ''
    )
    return plot(
        page, 'teacher', 'Loss of the teacher', 'Means between two lines of the log.'
    ) + plot(
        page,
        'ect',
        'Loss of ECT',
        'Dashed: the distance between the outputs at two noise levels; solid: the same, weighted, '
        f'which is trained on. The distance falls as the curriculum closes their gap.{stages}',
    )


def searching(page: Page) -> str:
    """Returns the plots of the search."""
    return plot(
        page,
        'search',
        'Progress of the search',
        f'{page.candidates:,} candidates; the first are the last checkpoint, EMA profiles and the '
        'uniform average. Fewer samples and other noise than in the table: not to be compared '
        'with it.',
    ) + plot(
        page,
        'coefficients',
        'Coefficients over training',
        f'The weights of LCSC are the sum of {page.snapshots} checkpoints times these coefficients, '
        'which sum to 1. The line is the EMA profile that did best on the selection noise.',
    )


def definitions(facts: Mapping[str, str]) -> str:
    """Returns a list of terms, each with its description."""
    items = (
        f'<dt>{html.escape(term)}</dt><dd>{html.escape(description)}</dd>'
        for term, description in facts.items()
    )
    return f'<dl>{"".join(items)}</dl>'


def measurement(page: Page) -> dict[str, str]:
    """Returns, by term, how the scores were measured and on which noise."""
    entry = by_sampler(page.entries, 'lcsc')[0]
    protocol, budget = entry.row['protocol'], page.search.budget
    reference, extractor = protocol['reference'], protocol['extractor']
    seeds, teacher = (
        ', '.join(map(str, e.row['protocol']['seeds'])) for e in (entry, page.entries[0])
    )
    return {
        'Score': f'{protocol["score"]}: Fréchet distance between the features of generated and real '
        'images',
        'Extractor': f'{extractor["name"]}, checksum {extractor["checksum"][:16]}; images before it: '
        f'{extractor.get("resize", "not stored")}',  # earlier versions did not store it
        'Reference': f'{describe(reference)}, checksum {reference["checksum"][:16]}',
        'Samples': f'{protocol["samples"]:,} for each seed; the score is the mean over seeds ± their '
        'standard deviation',
        'Rounding': f'{protocol["rounding"]}, before the features',
        'Labels': protocol['labels'],
        'Report noise': f'seeds {seeds}; nothing was chosen by it but the best average. '
        f'Teacher: seeds {teacher}',
        'Search noise': f'seed {budget.seed}, {budget.samples:,} samples a candidate',
        'Selection noise': f'seeds {", ".join(map(str, budget.selection_seeds))}, as many samples: '
        f'the best {budget.finalists} candidates, and the EMA profiles',
        'Protocol id': f'{protocol["id"]}, the same in every row',
    }


def settings(page: Page) -> str:
    """Returns the resolved configs, each folded, with one key in a line."""
    lines = {
        title: '\n'.join(f'{key} = {json.dumps(value)}' for key, value in flatten(config).items())
        for title, config in page.settings.items()
    }
    return ''.join(
        f'<details><summary>{html.escape(title)}</summary><pre>{html.escape(text)}</pre></details>'
        for title, text in lines.items()
    )


def render(page: Page) -> str:
    """Returns the page as HTML text."""
    title = f'Few-step generation on {page.dataset}'
    metric = page.entries[0].metric
    extractor = page.entries[0].row['protocol']['extractor']['name']
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title><style>{CSS}</style></head><body><main>
<h1>{html.escape(title)}</h1>
<p class="lead">{html.escape(summary(page))}</p>
<div class="cards">{cards(page)}</div>
<h2>Scores</h2>
<p class="soft">{html.escape(metric)} is a Fréchet distance, as FID is, but between the features of a
small network, {html.escape(extractor)}: it compares with the other rows of this table only. Bold: the
lowest for its number of steps. ± is the standard deviation over noise seeds.</p>
{table(page)}
<p class="soft"><b>Best average</b> is the hardest comparison for LCSC: for each number of steps, the
lowest score of the table's own noise among all averages of the run, chosen after the fact. LCSC was
chosen on other noise. In LCSC's favour: it was searched for this very distance, to the same reference,
with the sampler {html.escape(page.search.budget.sampler)}; the averages saw at most a choice of
rate.</p>
{averages(page)}
<h2>Samples</h2>
<p class="soft">{html.escape(page.grid_note)}</p>
{grids(page)}
<h2>Training</h2>
<div class="plots">{training(page)}</div>
<h2>Search</h2>
<div class="plots">{searching(page)}</div>
<h2>How the scores were measured</h2>
{definitions(measurement(page))}
<h2>Cost and environment</h2>
{definitions(page.facts)}
<h2>Settings</h2>
{settings(page)}
</main></body></html>
"""
