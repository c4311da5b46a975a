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
from cm_jax.reports import page_scores
from cm_jax.reports.page_search import SearchPart, figure, noises, searching
from cm_jax.reports.rows import Entry, by_sampler, compared, counted, protocols, spaces, what
from cm_jax.reports.style import CSS


class Page(NamedTuple):
    """What the page shows."""

    dataset: str  # its name
    entries: Sequence[Entry]  # the rows of the table
    averages: Sequence[Entry]  # all averages of weights, of which the best one is in the table
    grids: Sequence[tuple[Entry, bytes]]  # a grid of samples of a row, as a PNG file
    grid_note: str  # how the samples of the grids were drawn
    plots: Mapping[str, str]  # <svg> elements by name: teacher, ect; of those with a log
    stage: int | None  # the length in steps of a stage of ECT's curriculum; None is no stages
    searches: Sequence[SearchPart]
    facts: Mapping[str, str]  # term -> description: what the runs cost, and where the page was made
    settings: Mapping[str, Mapping[str, Any]]  # title -> resolved config


def summary(page: Page) -> str:
    """Returns the result in one paragraph of plain words, all by the main score."""
    lcscs, teachers = (by_sampler(page.entries, model) for model in ('lcsc', 'teacher'))
    ect = by_sampler(page.entries, 'ect')[0]
    averages = {ema.sampler: ema for ema in by_sampler(page.entries, 'ema')}
    fewest = [e for e in lcscs if e.evaluations == lcscs[0].evaluations]
    ema = averages[fewest[0].sampler]
    text = [
        f'With {counted(ema.evaluations, "network evaluation")} a sample, the last weights of one ECT '
        f'run reach a Fréchet distance of {ect.score}, and the best average of its weights, '
        f'{ema.weights}, reaches {ema.score}. LCSC searches a linear combination of its checkpoints.'
    ]
    for lcsc in fewest:
        n = len(lcsc.row['values'])
        wins = sum(a < b for a, b in zip(lcsc.row['values'], ema.row['values']))
        text.append(
            f'{lcsc.name} reaches {lcsc.score}, {compared(lcsc, ema)} the best average (lower on '
            f'{wins} of {counted(n, "noise seed")}) and {compared(lcsc, ect)} the last weights.'
        )
    for lcsc in lcscs[len(fewest) :]:
        average = averages[lcsc.sampler]
        text.append(
            f'With {lcsc.evaluations} evaluations {lcsc.name} reaches {lcsc.value:.2f}, '
            f'{compared(lcsc, average)} the best average there, at {average.value:.2f}.'
        )
    costs = [f'{e.value:.2f} with {counted(e.evaluations, "evaluation")}' for e in teachers[::-1]]
    text.append(f'The diffusion teacher reaches {" and ".join(costs)}. Lower is better.')
    return ' '.join(text).replace(' ± ', '\u00a0±\u00a0').replace(' %', '\u00a0%')


def cards(page: Page) -> str:
    """Returns the scores that matter most, in large print.

    They are those of LCSC by each search, the best average and ECT with the fewest network
    evaluations, and that of the teacher with the most.
    """
    emas, ects, lcscs = (by_sampler(page.entries, model) for model in ('ema', 'ect', 'lcsc'))
    shown = [e for e in lcscs if e.evaluations == lcscs[0].evaluations]
    shown += [emas[0], ects[0], by_sampler(page.entries, 'teacher')[-1]]
    return ''.join(
        f'<div class="card {e.model}"><span>{html.escape(e.name)}, '
        f'{counted(e.evaluations, "evaluation")}</span><b>{e.value:.2f}</b>'
        f'<span>{html.escape(what(e))}</span></div>'
        for e in shown
    )


def grids(page: Page) -> str:
    """Returns the grids of samples, side by side."""
    figures = ''
    for e, png in page.grids:
        cost = counted(e.evaluations, 'evaluation')
        source = f'data:image/png;base64,{base64.b64encode(png).decode()}'
        figures += (
            f'<figure><img src="{source}" alt="Grid of samples: {html.escape(e.name)}, {cost}">'
            f'<figcaption><b>{html.escape(e.name)}</b>{cost}<br>{e.metric} {e.value:.2f}</figcaption>'
            '</figure>'
        )
    return f'<div class="grids">{figures}</div>'


def training(page: Page) -> str:
    """Returns the plots of the two training runs, as far as there are any."""
    stages = (
        f' Bands: the stages of its curriculum, {page.stage:,} steps each.' if page.stage else ''
    )
    captions = {
        'teacher': ('Loss of the teacher', 'Means between two lines of the log.'),
        'ect': (
            'Loss of ECT',
            'Dashed: the distance between the outputs at two noise levels; solid: the same, weighted, '
            f'which is trained on. The distance falls as the curriculum closes their gap.{stages}',
        ),
    }
    return ''.join(figure(plot, *captions[name]) for name, plot in page.plots.items())


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
    protocol = entry.row['protocol']
    reference, extractor = protocol['reference'], protocol['extractor']
    seeds, teacher = (
        ', '.join(map(str, e.row['protocol']['seeds'])) for e in (entry, page.entries[0])
    )
    return {
        'Score': f'{protocol["score"]}: Fréchet distance between the features of generated and real '
        'images',
        'Extractor': f'{extractor["name"]}, checksum {extractor["checksum"][:16]}; images before it: '
        f'{extractor.get("resize", "not stored")}',  # earlier versions did not store it
        'Other spaces': second_extractors(page.entries),
        'Reference': f'{describe(reference)}, checksum {reference["checksum"][:16]}',
        'Samples': f'{protocol["samples"]:,} for each seed; the score is the mean over seeds ± their '
        'standard deviation',
        'Rounding': f'{protocol["rounding"]}, before the features',
        'Labels': protocol['labels'],
        'Report noise': f'seeds {seeds}; nothing was chosen by it but the best average. '
        f'Teacher: seeds {teacher}',
        **noises(page.searches),
        'Protocol id': f'{protocol["id"]}, the same in every row',
    }


def second_extractors(entries: Sequence[Entry]) -> str:
    """Returns which extractors made the scores of the other feature spaces, with their checksums."""
    found = {}
    for entry in by_sampler(entries, 'lcsc'):
        for score, protocol in protocols(entry.row).items():
            found[score] = protocol['extractor']
    return (
        '; '.join(
            f'{score}: {found[score]["name"]}, checksum {found[score]["checksum"][:16]}'
            for score in spaces(entries)[1:]
        )
        or 'none were measured'
    )


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
    objectives = ', '.join(f'{part.name} for {part.metric}' for part in page.searches)
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
best for its number of steps; distances are the better the lower, precision and recall the higher.
± is the standard deviation over noise seeds.</p>
{page_scores.table(page.entries)}
{page_scores.opinions(page.entries)}
<p class="soft"><b>Best average</b> is the hardest comparison for LCSC: for each number of steps, the
lowest {html.escape(metric)} of the table's own noise among all averages of the run, chosen after the
fact. LCSC was chosen on other noise. In LCSC's favour: it was searched for what is starred, to the same
reference ({html.escape(objectives)}); the averages saw at most a choice of a few numbers.</p>
{page_scores.averages(page.averages)}
<h2>Samples</h2>
<p class="soft">{html.escape(page.grid_note)}</p>
{grids(page)}
<h2>Training</h2>
<div class="plots">{training(page)}</div>
<h2>Search</h2>
<div class="plots">{''.join(searching(part) for part in page.searches)}</div>
<h2>How the scores were measured</h2>
{definitions(measurement(page))}
<h2>Cost and environment</h2>
{definitions(page.facts)}
<h2>Settings</h2>
{settings(page)}
</main></body></html>
"""
