"""The report's page: pure functions from scores, pictures and settings to one HTML string.

The page needs nothing but itself: styles, curves and pictures are inside it, and it runs no script.
"""

import base64
import html
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cm_jax.config import flatten
from cm_jax.evaluation.references import describe
from cm_jax.reports.rows import NAMES, Entry, by_sampler, compared, counted, what
from cm_jax.settings import SearchSettings

CSS = """
:root { --soft: #4b5563; --line: #e5e7eb }
.teacher { --own: #555555 } .ect { --own: #009e73 } .ema { --own: #0072b2 } .lcsc { --own: #d55e00 }
* { box-sizing: border-box }
body { margin: 0; background: #fff; color: #111827;
  font: 16px/1.6 system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif }
main { max-width: 1060px; margin: 0 auto; padding: 40px 20px 80px }
h1 { font-size: 32px; line-height: 1.2; margin: 0 0 12px } h2 { font-size: 21px; margin: 56px 0 8px }
p { max-width: 74ch; margin: 8px 0 }
.lead { font-size: 18px; line-height: 1.55; color: #1f2937 }
.soft, figcaption { color: var(--soft); font-size: 14.5px }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: 14px;
  margin: 28px 0 8px }
.card { border: 1px solid var(--line); border-top: 4px solid var(--own); border-radius: 8px;
  padding: 14px 16px }
.card b { display: block; font-size: 30px; line-height: 1.25; font-variant-numeric: tabular-nums }
.card span { display: block; color: var(--soft); font-size: 14px }
.wide { overflow-x: auto; margin: 16px 0 } figure { margin: 0 }
table { border-collapse: collapse; width: 100%; font-size: 15px }
th, td { padding: 8px 12px; text-align: left; border-bottom: 1px solid #e5e7eb; vertical-align: top }
th { font-weight: 600; color: var(--soft); font-size: 13.5px; white-space: nowrap }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
tbody th { color: #111827; font-size: 15px }
th small { display: block; font-size: 14px; font-weight: 400; color: var(--soft); padding-left: 18px }
tr.group > * { border-top: 2px solid #9ca3af } tr.lcsc > * { background: #fff7f0 }
tr.best .n:last-child { font-weight: 700 }
.dot { display: inline-block; width: 10px; height: 10px; border-radius: 50%; margin-right: 8px;
  background: var(--own) }
.grids { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 18px;
  margin: 20px 0 }
.grids img { width: 100%; display: block }
.grids figcaption { text-align: center; line-height: 1.4; margin-top: 8px }
.grids figcaption b { display: block; color: #111827; font-size: 15px }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr));
  gap: 28px; margin: 20px 0 }
.plots svg { width: 100%; display: block } .plots svg text { font-family: inherit !important }
dl { display: grid; grid-template-columns: minmax(120px, 190px) 1fr; gap: 6px 20px; font-size: 15px }
dt { color: var(--soft) } dd { margin: 0; overflow-wrap: anywhere }
details { border: 1px solid var(--line); border-radius: 8px; margin: 10px 0; background: #f9fafb }
summary { cursor: pointer; padding: 10px 16px; font-weight: 600 }
details > div { padding: 0 16px 12px }
pre { margin: 0; padding: 0 16px 16px; overflow-x: auto; font-size: 13px; line-height: 1.45 }
@media (max-width: 600px) { main { padding-top: 24px } h1 { font-size: 26px }
  dl { grid-template-columns: 1fr } dd { margin-bottom: 8px }
  .cards, .grids { grid-template-columns: 1fr 1fr } th, td { padding: 7px 6px }
  .scores .n:nth-child(4) { display: none } th { white-space: normal } .card { padding: 12px }
  h2 { margin-top: 44px } .card b { font-size: 26px } }
@media (max-width: 480px) { .scores .n:nth-child(2) { display: none } th, td { padding: 7px 3px } }
"""


class Page(NamedTuple):
    """What the page shows. `grids` are PNG files, `plots` <svg> elements by name."""

    dataset: str
    entries: Sequence[Entry]
    averages: Sequence[Entry]  # all that the best average was chosen from
    grids: Sequence[tuple[Entry, bytes]]
    grid_note: str
    plots: Mapping[str, str]  # teacher, ect, search, coefficients
    stage: int | None  # steps of a stage of ECT's curriculum
    search: SearchSettings
    candidates: int
    snapshots: int
    facts: Mapping[str, str]  # the cost of the runs and the environment
    settings: Mapping[str, Mapping[str, Any]]  # a resolved config by title


def summary(page: Page) -> str:
    """The result in one paragraph of plain words."""
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
    """The scores that matter most, large."""
    shown = [by_sampler(page.entries, m)[0] for m in ('lcsc', 'ema', 'ect')]
    shown.append(by_sampler(page.entries, 'teacher')[-1])
    return ''.join(
        f'<div class="card {e.model}"><span>{NAMES[e.model]}, {counted(e.evaluations, "evaluation")}'
        f'</span><b>{e.value:.2f}</b><span>{html.escape(what(e, page.snapshots))}</span></div>'
        for e in shown
    )


def table(page: Page) -> str:
    """The rows of results.json."""
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
    """Cells of a table row, to the right."""
    return ''.join(f'<{tag} class="n">{html.escape(str(cell))}</{tag}>' for cell in cells)


def averages(page: Page) -> str:
    """Every average with every sampler."""
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
    """The samples, side by side."""
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
    """A curve with its caption."""
    return (
        f'<figure><div role="img" aria-label="{html.escape(title)}">{page.plots[name]}</div>'
        f'<figcaption><b>{html.escape(title)}.</b> {html.escape(caption)}</figcaption></figure>'
    )


def training(page: Page) -> str:
    """The curves of the two training runs."""
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
    """The curves of the search."""
    return plot(
        page,
        'search',
        'Progress of the search',
        f'{page.candidates:,} candidates; generation 0 is the last checkpoint, EMA profiles and the '
        'uniform average. Fewer samples and other noise than in the table: not to be compared with it.',
    ) + plot(
        page,
        'coefficients',
        'Coefficients over training',
        f'The weights of LCSC are the sum of {page.snapshots} checkpoints times these coefficients, '
        'which sum to 1. The line is the EMA profile that did best on the selection noise.',
    )


def definitions(facts: Mapping[str, str]) -> str:
    """A list of terms with what they are."""
    items = (f'<dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd>' for k, v in facts.items())
    return f'<dl>{"".join(items)}</dl>'


def protocol(page: Page) -> dict[str, str]:
    """How the scores were measured, and on which noise."""
    entry = by_sampler(page.entries, 'lcsc')[0]
    p, budget = entry.row['protocol'], page.search.budget
    reference, extractor = p['reference'], p['extractor']
    seeds, teacher = (
        ', '.join(map(str, e.row['protocol']['seeds'])) for e in (entry, page.entries[0])
    )
    return {
        'Score': f'{p["score"]}: Fréchet distance between the features of generated and real images',
        'Extractor': f'{extractor["name"]}, checksum {extractor["checksum"][:16]}; images before it: '
        f'{extractor.get("resize", "not stored")}',  # scores from before it was
        'Reference': f'{describe(reference)}, checksum {reference["checksum"][:16]}',
        'Samples': f'{p["samples"]:,} for each seed; the score is the mean over seeds ± their standard '
        'deviation',
        'Rounding': f'{p["rounding"]}, before the features',
        'Labels': p['labels'],
        'Report noise': f'seeds {seeds}; nothing was chosen by it but the best average. '
        f'Teacher: seeds {teacher}',
        'Search noise': f'seed {budget.seed}, {budget.samples:,} samples a candidate',
        'Selection noise': f'seeds {", ".join(map(str, budget.selection_seeds))}, as many samples: '
        f'the best {budget.finalists} candidates, and the EMA profiles',
        'Protocol id': f'{p["id"]}, the same in every row',
    }


def settings(page: Page) -> str:
    """The resolved configs, folded, a line a key."""
    lines = {
        title: '\n'.join(f'{key} = {json.dumps(value)}' for key, value in flatten(config).items())
        for title, config in page.settings.items()
    }
    return ''.join(
        f'<details><summary>{html.escape(title)}</summary><pre>{html.escape(text)}</pre></details>'
        for title, text in lines.items()
    )


def render(page: Page) -> str:
    """The page."""
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
{definitions(protocol(page))}
<h2>Cost and environment</h2>
{definitions(page.facts)}
<h2>Settings</h2>
{settings(page)}
</main></body></html>
"""
