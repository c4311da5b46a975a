"""The page of a search folder (LCSC): what was searched, what was found, and in which feature spaces.

A search that is not finished has a page of its progress so far.
"""

import functools
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from cm_jax.errors import UserError
from cm_jax.lcsc import combine
from cm_jax.lcsc.identity import EMA_STAR, LCSC, RANDOM
from cm_jax.lcsc.opened import open_search
from cm_jax.reports import elements, facts, page_scores, samples
from cm_jax.reports.elements import Section
from cm_jax.reports.opinions import STARRED, words
from cm_jax.reports.page_search import (
    SearchPart,
    draw_progress,
    draw_search,
    minimised,
    noises,
    progress_figure,
    search_cost,
    searching,
)
from cm_jax.reports.rows import Entry, compared, counted, main_score, protocols, report_entries
from cm_jax.reports.samples import Weights
from cm_jax.reports.searches import Search, open_finished
from cm_jax.run import open_run, summary
from cm_jax.run_folder import REPORT, SEARCH, read_record, weights_label
from cm_jax.settings import SearchSettings, parse_search
from cm_jax.types import Params

KINDS = {  # what the kinds of rows are (lcsc.identity)
    'last': 'the last checkpoint',
    'ema': 'kept in training',
    'ema*': 'the best EMA profile of the checkpoints',
    'uniform': 'the mean of the checkpoints',
    'window': 'the best mean of successive checkpoints',
    'bema': 'the best with its bias corrected',
    'posthoc': 'the best post-hoc average',
    'random': 'found at random',
    'lcsc': 'found by the search',
}


def entries(search: Search) -> list[Entry]:
    """Returns all rows of the report of a search, by sampler; a random search is one, too."""
    found = [
        Entry('lcsc' if row['kind'] in (LCSC, RANDOM) else 'ema', row['label'], row, search.report)
        for row in search.report.rows
    ]
    return sorted(found, key=lambda entry: (entry.steps, entry.evaluations, entry.sampler))


def label(entry: Entry) -> tuple[str, str]:
    """Returns the name of a row of the report of a search, and what it is."""
    return entry.weights, f'{KINDS[entry.row["kind"]]}, {entry.sampler}'


def compared_entries(search: Search) -> list[Entry]:
    """Returns the last weights, the best average and LCSC for each sampler; [] if not all are there."""
    try:
        return report_entries([search.report])
    except UserError:  # the search reports some kinds of models only
        return []


def lead(search: Search) -> str:
    """Returns the result of a search in plain words, by the main score with its own sampler."""
    rows = [e for e in compared_entries(search) if e.sampler == search.report.sampler]
    by_model = {entry.model: entry for entry in rows}
    if not {'ect', 'ema', 'lcsc'} <= by_model.keys():
        found = [e for e in entries(search) if e.row['kind'] == LCSC]
        reached = ', '.join(f'{e.metric} {e.score} with {e.sampler}' for e in found)
        return f'A combination of {len(search.steps)} checkpoints of {search.basis}: {reached}.'
    last, best, lcsc = (by_model[model] for model in ('ect', 'ema', 'lcsc'))
    return (
        f'The combination of {len(search.steps)} checkpoints of {search.basis} that was found reaches '
        f'{lcsc.metric} {lcsc.score} with {counted(lcsc.evaluations, "evaluation")}: '
        f'{compared(lcsc, best)} the best average, {best.weights} ({best.score}), and '
        f'{compared(lcsc, last)} the last weights ({last.score}). Lower is better.'
    )


def scores(search: Search) -> str:
    """Returns the table of the report, what was searched, and what is to be said against it."""
    rows, alike = entries(search), compared_entries(search)
    note = elements.soft(
        'On noise that nothing was chosen by. Distances are the better the lower, precision and recall '
        'the higher. Bold: the best for its number of steps. ± is the standard deviation over noise '
        'seeds.'
    )
    found = [entry for entry in rows if entry.row['kind'] == LCSC]
    said = (
        page_scores.opinions(alike)
        if alike
        else elements.soft(' '.join([f'{STARRED}.', *words(found)]))
    )
    return note + page_scores.table(rows, label) + said


def snapshot_weights(search: Search) -> Iterator[Weights]:
    """Yields the last snapshot of a search, its best EMA profile and what it found.

    Raises UserError if the runs of the snapshots are not where they were.
    """
    folders = search.runs or [search.basis] * len(search.steps)
    runs = {folder: open_run(folder) for folder in dict.fromkeys(folders)}
    snapshots = list(zip(folders, search.steps))

    def load(snapshot: tuple[str, int]) -> Params:
        folder, step = snapshot
        return runs[folder].params(step, search.ema)

    def best_profile() -> Params:
        profile = search.average(EMA_STAR)
        return search.run.project(combine.combine(load, snapshots, profile))

    kind = f' of {weights_label(search.ema)}' if search.ema else ''
    yield Weights(f'last: step {search.steps[-1]:,}{kind}', lambda: load(snapshots[-1]))
    yield Weights(f'best EMA profile: {search.ema_star}', best_profile)
    yield found_weights(search)


def found_weights(search: Search) -> Weights:
    """Returns the weights that a search found."""
    return Weights('LCSC', functools.partial(search.run.params, None))


def drawn_samples(search: Search, count: int) -> str:
    """Returns `count` samples of the last snapshot, of the best profile and of LCSC; '' for 0."""
    if not count:
        return elements.missing('No samples were drawn: --samples=0.')
    note = ''
    try:
        each = list(snapshot_weights(search))
    except UserError as error:
        note = elements.missing(f'Only what was found is drawn: {error}.')
        each = [found_weights(search)]
    return note + samples.draw(search.run, search.settings.budget.sampler, each, count)


def identity(settings: SearchSettings, facts_found: Mapping[str, str]) -> dict[str, str]:
    """Returns, by term, what a search is."""
    basis, search = settings.basis, settings.search
    stop = 'the end' if basis.stop is None else f'{basis.stop:,}'
    groups = settings.basis.groups
    return {
        'Searched by': search['method'],
        'Training run': basis.workdir,
        'Checkpoints': f'{weights_label(basis.ema)} of step {basis.start:,} to {stop}'
        + (f', every {basis.every}th' if basis.every > 1 else ''),
        'Groups of weights': ', '.join(groups) if groups else 'one: a coefficient a checkpoint',
        **facts_found,
        'This page': facts.environment(),
    }


def finished(folder: epath.Path, config: Mapping[str, Any], count: int) -> str:
    """Returns the page of a finished search."""
    search = open_finished(folder, config, parse_search(config).search['method'])
    metric, run = main_score(search.report.rows[0]), search.run
    stage = None if search.runs else run.settings.objective.get('double_every')
    part = draw_search(search, metric, stage)
    terms = {
        'Data': facts.data(run.card),
        'Network': summary.network(run),
        'Best EMA profile': search.chosen.choices[EMA_STAR].identity(EMA_STAR).label,
        'Objective and noise': noises(search.settings, part.metric),
        'Cost': search_cost(search),
    }
    sections = [
        Section('Scores', scores(search)),
        Section('What it is', elements.definitions(identity(search.settings, terms))),
        Section('Search', elements.figures([searching(part)])),
        Section('Samples', drawn_samples(search, count)),
        Section('How the scores were measured', measured(search)),
        Section('Settings', elements.settings({'search.json': config})),
    ]
    return elements.document(title(search, part), lead(search), sections)


def title(search: Search, part: SearchPart) -> str:
    """Returns what a search is, in a few words."""
    return f'{part.name} on {search.run.card.get("name", "unknown data")}'


def measured(search: Search) -> str:
    """Returns how the scores were measured in each feature space of the report."""
    row = next(row for row in search.report.rows if row['kind'] == LCSC)
    text = ''
    for score, protocol in protocols(row).items():
        mark = 'searched' if score in search.report.searched else 'a second opinion'
        noise = {'Report noise': f'seeds {", ".join(map(str, protocol["seeds"]))}'}
        text += f'<h3>{score}: {mark}</h3>'
        text += elements.definitions(
            facts.measured(protocol) | noise | {'Protocol id': protocol['id']}
        )
    return text


def unfinished(workdir: epath.Path, config: Mapping[str, Any]) -> str:
    """Returns the page of a search that has no report yet. Raises UserError if it did not begin."""
    folder = open_search(workdir)
    settings, rows = folder.settings, folder.candidates()
    metric, method = minimised(settings.budget, 'score'), settings.search['method']
    generation = max((row['generation'] for row in rows), default=0)
    plot = elements.missing('No candidate was scored yet.')
    if any(row['score'] is not None for row in rows):
        svg, descent = draw_progress(folder, method), settings.is_descent
        plot = elements.figures(
            [progress_figure(svg, f'LCSC ({method})', len(rows), metric, descent)]
        )
    note = elements.missing(
        f'There is no {REPORT} yet: no scores, coefficients and samples. The command that began the '
        'search goes on with it.'
    )
    terms = {'Objective and noise': noises(settings, metric)}
    sections = [
        Section('Search', plot + note),
        Section('What it is', elements.definitions(identity(settings, terms))),
        Section('Settings', elements.settings({'search.json': config})),
    ]
    text = (
        f'{workdir}: {counted(len(rows), "candidate")} scored, generation {generation:,} of '
        f'{settings.budget.generations:,}. The page shows what is there now.'
    )
    return elements.document(f'LCSC ({method}), not finished', text, sections)


def render(folder: epath.Path, count: int) -> str:
    """Returns the page of a search as HTML text, with `count` samples of each of some weights."""
    config = read_record(folder, SEARCH, dict)
    if (folder / REPORT).exists():
        return finished(folder, config, count)
    return unfinished(folder, config)
