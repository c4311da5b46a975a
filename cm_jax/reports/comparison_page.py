"""The page of a comparison: pure functions that turn scores, pictures and settings into HTML text.

`render` makes the whole page, and each other function returns one part of it.
"""

import html
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cm_jax.reports import elements, facts, page_scores
from cm_jax.reports.elements import Section, figure
from cm_jax.reports.page_search import SearchPart, noises, searching
from cm_jax.reports.rows import Entry, by_sampler, compared, counted, protocols, spaces, what


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
        figures += (
            f'<figure>{elements.image(png, f"Grid of samples: {e.name}, {cost}")}'
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


def measurement(page: Page) -> dict[str, str]:
    """Returns, by term, how the scores were measured and on which noise."""
    entry = by_sampler(page.entries, 'lcsc')[0]
    protocol = entry.row['protocol']
    seeds, teacher = (
        ', '.join(map(str, e.row['protocol']['seeds'])) for e in (entry, page.entries[0])
    )
    return {
        **facts.measured(protocol),
        'Other spaces': second_extractors(page.entries),
        'Report noise': f'seeds {seeds}; nothing was chosen by it but the best average. '
        f'Teacher: seeds {teacher}',
        **{part.name: noises(part.settings, part.metric) for part in page.searches},
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


def render(page: Page) -> str:
    """Returns the page as HTML text."""
    metric = page.entries[0].metric
    extractor = page.entries[0].row['protocol']['extractor']['name']
    objectives = ', '.join(f'{part.name} for {part.metric}' for part in page.searches)
    scores = [
        elements.soft(
            f'{metric} is a Fréchet distance, as FID is, but between the features of a small network, '
            f'{extractor}: it compares with the other rows of this table only. Bold: the best for its '
            'number of steps; distances are the better the lower, precision and recall the higher. '
            '± is the standard deviation over noise seeds.'
        ),
        page_scores.table(page.entries),
        page_scores.opinions(page.entries),
        elements.soft(
            'Best average is the hardest comparison for LCSC: for each number of steps, the lowest '
            f"{metric} of the table's own noise among all averages of the run, chosen after the fact. "
            "LCSC was chosen on other noise. In LCSC's favour: it was searched for what is starred, to "
            f'the same reference ({objectives}); the averages saw at most a choice of a few numbers.'
        ),
        page_scores.averages(page.averages),
    ]
    sections = [
        Section('Scores', '\n'.join(scores)),
        Section('Samples', elements.soft(page.grid_note) + grids(page)),
        Section('Training', f'<div class="plots">{training(page)}</div>'),
        Section('Search', elements.figures([searching(part) for part in page.searches])),
        Section('How the scores were measured', elements.definitions(measurement(page))),
        Section('Cost and environment', elements.definitions(page.facts)),
        Section('Settings', elements.settings(page.settings)),
    ]
    title = f'Few-step generation on {page.dataset}'
    return elements.document(
        title, summary(page), sections, f'<div class="cards">{cards(page)}</div>'
    )
