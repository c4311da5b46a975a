"""The page of a study: its tables and figures, and how far its runs or searches have come."""

import html
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from etils import epath
from matplotlib.figure import Figure

from cm_jax.errors import UserError
from cm_jax.lcsc import generations, job
from cm_jax.reports import elements, facts, plots, study_curves, study_methods
from cm_jax.reports.elements import Section
from cm_jax.reports.rows import counted
from cm_jax.reports.study_lcsc import COMPARED
from cm_jax.reports.study_methods import SEED
from cm_jax.run import open_run
from cm_jax.run_folder import CONFIG, REPORT, SEARCH, read_record

NUMBERS, TABLES = 'study.json', 'study.md'
RUNS, SEARCHES = f'*/seed*/{CONFIG}', f'search/*/*/seed*/{SEARCH}'


def is_study(workdir: epath.Path) -> bool:
    """Returns whether a folder is that of a study, of methods or of searches."""
    return (workdir / NUMBERS).exists() or bool(folders(workdir, RUNS) + folders(workdir, SEARCHES))


def folders(workdir: epath.Path, pattern: str) -> list[epath.Path]:
    """Returns the folders of runs or searches of a study, without those that --fresh has set aside."""
    found = (path.parent for path in workdir.glob(pattern))
    return sorted(path for path in found if SEED.fullmatch(path.name))


def to_html(markdown: str) -> str:
    """Returns the tables, headings and paragraphs of study.md as HTML text."""
    return '\n'.join(_blocks(markdown.splitlines()))


def _blocks(lines: Sequence[str]) -> Iterator[str]:
    """Yields the blocks of lines of Markdown: a table, a heading or a paragraph each."""
    rows: list[list[str]] = []
    for line in [*lines, '']:
        if line.startswith('|'):
            cells = [cell.strip() for cell in line.strip('|').split('|')]
            if not all(re.fullmatch('-+', cell) for cell in cells):
                rows.append([cell.replace('`', '') for cell in cells])
            continue
        if rows:
            yield elements.table(rows[0], rows[1:])
            rows = []
        if line.startswith('### '):
            yield f'<h3>{html.escape(line.removeprefix("### "))}</h3>'
        elif line:
            yield f'<p>{html.escape(line.replace("`", ""))}</p>'


def curves(results: Mapping[str, Any]) -> Figure:
    """Returns the figure of a study of searches, of the numbers in its study.json."""
    drawn = {
        title: {
            method: study_curves.Curve(**line) for method, line in results[use]['curves'].items()
        }
        for use, title in COMPARED.items()
    }
    return study_curves.draw(drawn)


def results(workdir: epath.Path, is_searches: bool) -> str:
    """Returns the figure and the tables of a study, or the command that makes them."""
    if not (workdir / NUMBERS).exists() or not (workdir / TABLES).exists():
        option = ' --lcsc' if is_searches else ''
        return elements.missing(
            'The study has no tables yet; they need all of its runs.',
            f'python -m cm_jax.study --workdir={workdir}{option}',
        )
    found = read_record(workdir, NUMBERS)
    if isinstance(found, list):
        figure = plots.to_svg(study_methods.plot(found), 'study')
        shown = elements.figure(
            figure,
            'Score over network evaluations',
            'A line is a method, a point one of its samplers. Bars: standard deviation over training '
            'seeds. Lower is better.',
        )
    else:
        svg = plots.to_svg(curves(found), 'study', scale=1)
        svg = svg.replace('<svg ', '<svg class="study" ', 1)
        caption = (
            'Score on search noise over the cost of the search. The tables are on other noise.'
        )
        shown = elements.figure(svg, 'Progress of the searches', caption)
    return shown + to_html((workdir / TABLES).read_text())


def state(folder: epath.Path) -> tuple[str, str]:
    """Returns how far a run or a search has come, and how often it was scored."""
    if (folder / SEARCH).exists():
        candidates = len(generations.read_candidates(folder, job.SEARCH))
        done = 'finished' if (folder / REPORT).exists() else 'not finished'
        return done, counted(candidates, 'candidate')
    try:
        run = open_run(folder)
        last = max(run.steps(), default=0)
    except UserError as error:
        return str(error), '–'
    return f'step {last:,} of {run.settings.steps or last:,}', counted(len(run.scores()), 'score')


def render(workdir: epath.Path) -> str:
    """Returns the page of a study as HTML text."""
    searches, runs = folders(workdir, SEARCHES), folders(workdir, RUNS)
    parts = [*runs, *searches]
    rows = [(str(path.relative_to(workdir)), *state(path)) for path in parts]
    protocols = ''
    if (workdir / NUMBERS).exists() and not searches:
        (first, *_) = read_record(workdir, NUMBERS)
        protocols = elements.definitions(
            facts.measured(first['protocol'] | {'score': first['score']})
        )
    sections = [
        Section('Results', results(workdir, bool(searches))),
        Section('How the scores were measured', protocols),
        Section('Runs', elements.table(('folder', 'state', 'scored'), rows) if rows else ''),
        Section('This page', elements.soft(facts.environment())),
    ]
    lead = f'{workdir}: training runs: {len(runs)}; searches: {len(searches)}.'
    return elements.document(f'Study {workdir.name}', lead, sections)
