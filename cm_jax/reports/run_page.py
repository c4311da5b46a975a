"""The page of a run folder: what it is, its curves, samples, averages, scores and settings.

It shows what is there: a run that still trains has a page of what it has written so far.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cm_jax import run_folder
from cm_jax.core import ema as averages
from cm_jax.files import read_json_lines
from cm_jax.reports import elements, facts, plots, samples
from cm_jax.reports.elements import Section
from cm_jax.reports.rows import main_score, number
from cm_jax.run import Run, summary
from cm_jax.run_folder import ORIGIN, SKIPPED, weights_label


class Curve(NamedTuple):
    """A plot of a run's metrics: their names in metrics.jsonl, and what the plot is called."""

    title: str
    names: tuple[str, ...]
    ylabel: str
    caption: str


QUARTERS = tuple(f'loss_q{i}' for i in (1, 2, 3, 4))
CURVES = (
    Curve(
        'Loss',
        ('loss', 'distance'),
        'loss',
        'Means between two lines of the log. Distance, of consistency models: between the outputs at '
        'two noise levels; the loss is the same, weighted.',
    ),
    Curve(
        'Loss by noise level',
        QUARTERS,
        'loss',
        'By quarters of the noise levels of a batch: q1 is that with the least noise.',
    ),
    Curve('Gradient', ('grad_norm',), 'norm of the gradient', 'Before it is clipped.'),
    Curve('Weights', ('param_norm',), 'norm of the weights', 'Of all weights together.'),
    Curve('Learning rate', ('learning_rate',), 'learning rate', 'With its warmup and decay.'),
    Curve(
        'Gap',
        ('gap',),
        'gap, 1 - r/t',
        'Mean relative gap between the two noise levels t > r of a pair.',
    ),
    Curve('Speed', ('images_per_s',), 'images/s', 'On the machine that trained.'),
)


def title(run: Run) -> str:
    """Returns what a run is, in a few words."""
    return f'{run.settings.objective["name"].upper()} on {run.card.get("name", "unknown data")}'


def lead(run: Run) -> str:
    """Returns how far a run has come."""
    steps, rows = run.steps(), run.metrics()
    if (run.workdir / ORIGIN).exists():
        kept = f'steps {steps[0]:,} to {steps[-1]:,}' if len(steps) > 1 else 'one step'
        return f'{run.workdir}: weights that were not trained in this folder, {kept}.'
    at, last = max([row['step'] for row in rows] + steps, default=0), run.settings.steps
    if last and at < last:
        return (
            f'{run.workdir}: trained to step {at:,} of {last:,}. The page shows what is there now.'
        )
    return f'{run.workdir}: trained to its end, step {at:,}.'


def identity(run: Run) -> dict[str, str]:
    """Returns, by term, what a run is."""
    settings, steps = run.settings, run.steps()
    has_origin = (run.workdir / ORIGIN).exists()
    origin = run_folder.read_record(run.workdir, ORIGIN, dict) if has_origin else {}
    source = ', '.join(
        f'{key} {origin[key]}' for key in ('made_by', 'file', 'folder', 'format') if key in origin
    )
    start = settings.init_from.workdir
    return {
        'Method': settings.objective['name'],
        'Data': facts.data(run.card),
        'Network': summary.network(run),
        **({'Weights from': source} if source else {'Training': facts.cost(run)}),
        **({'Started from': f'the weights of {start}'} if start else {}),
        'Trajectory': f'{len(steps)} steps, {steps[0]:,} to {steps[-1]:,}' if steps else 'none yet',
        'Sampler': f'{settings.sampling.sampler}, of {weights_label(settings.sampling.ema)}',
        'This page': facts.environment(),
    }


def warnings(run: Run) -> str:
    """Returns what is to be said against a run: snapshots that are lost, steps that were skipped."""
    skipped = len(read_json_lines(run.workdir / SKIPPED, 'step'))
    texts = [run.lost_snapshots()]
    if skipped:
        texts.append(f'{skipped:,} steps were skipped: their loss or gradient was not finite.')
    return ''.join(elements.flag(text) for text in texts if text)


def training(run: Run) -> str:
    """Returns the plots of what a run has logged."""
    rows, stage = run.metrics(), run.settings.objective.get('double_every')
    if not rows:
        if (run.workdir / ORIGIN).exists():
            return ''
        return elements.missing(
            f'No metrics yet: training writes them every {run.settings.train.log_every} steps.'
        )
    logged = {name for row in rows for name, value in row.items() if value is not None}
    known = {name for curve in CURVES for name in curve.names}
    caption = 'On few samples, during training; not to be compared with the table.'
    scores = [
        Curve(f'{name} during training', (name,), name, caption)
        for name in sorted(logged - known)
        if name.startswith(('fid', 'fd_'))
    ]
    bands = f' Bands: stages of {stage:,} steps of its curriculum.' if stage else ''
    return elements.figures(
        [
            elements.figure(
                plots.to_svg(
                    plots.curves(rows, curve.names, curve.ylabel, None, stage), curve.title
                ),
                curve.title,
                curve.caption + bands,
            )
            for curve in (*CURVES, *scores)
            if logged & {*curve.names}
        ]
    )


def stored_averages(run: Run) -> str:
    """Returns a table of the averages of the weights that a trajectory holds, and at which steps."""
    at: dict[str, list[int]] = {}
    for step in run.steps():
        for name in run.emas(step):
            at.setdefault(name, []).append(step)
    if not at:
        return elements.missing('The trajectory holds no averages of the weights.')
    rows = []
    for name, steps in at.items():
        power = name.startswith(averages.POWER)
        meaning = 'power function, sigma_rel' if power else 'exponential, decay a step'
        where = (
            f'{len(steps)} steps, {steps[0]:,} to {steps[-1]:,}' if steps[1:] else f'{steps[0]:,}'
        )
        rows.append((weights_label(name), meaning, name.removeprefix(averages.POWER), where))
    note = 'Of the power functions others can be made after training: --ema=posthoc0.1.'
    has_power = any(name.startswith(averages.POWER) for name in at)
    heads = ('average', 'profile', 'parameter', 'kept at')
    return elements.table(heads, rows) + (elements.soft(note) if has_power else '')


def score_columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the names of all numbers that have a spread over noise seeds, in their order."""
    return list(dict.fromkeys(key for row in rows for key in row if f'{key}_std' in row))


def scores(run: Run) -> str:
    """Returns the table of a run's scores and how they were measured, or what makes them."""
    rows, ema = run.scores(), run.settings.sampling.ema
    command = f"python -m cm_jax.evaluate --workdir={run.workdir} --ema='{ema}'"
    if not rows:
        return elements.missing('This run has no scores yet.', command)
    columns, tuned = score_columns(rows), {record['sampler'] for record in run.tuned()}
    table = []
    for row in rows:
        protocol = row['protocol']
        weights = weights_label(protocol['ema'])
        star = '†' if protocol['sampler'] in tuned else ''
        name = f'step {protocol["step"]:,}, {weights}, {protocol["sampler"]}{star}'
        cells = [number(row, column) for column in columns]
        table.append((name, protocol['evaluations'], *cells, protocol['id']))
    found = facts.protocols_of(rows)
    text = elements.soft(
        'Distances are the better the lower, precision and recall the higher. ± is the standard '
        'deviation over noise seeds. Only rows of one protocol compare.'
    ) + elements.table(('weights, sampler', 'evaluations', *columns, 'protocol'), table)
    if any(row['protocol']['sampler'] in tuned for row in rows):
        text += elements.soft('† The noise levels of this sampler were chosen by a score.')
    return text + score_curve(rows) + protocols(found)


def score_curve(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns a plot of the first main score over training, if several steps have it."""
    first = rows[0]['protocol']['id']
    alike = [row for row in rows if row['protocol']['id'] == first]
    score = main_score(rows[0])
    points = [
        {
            'step': row['protocol']['step'],
            f'{weights_label(row["protocol"]["ema"])}, {row["protocol"]["sampler"]}': row[score],
        }
        for row in sorted(alike, key=lambda row: row['protocol']['step'])
    ]
    if len({point['step'] for point in points}) < 2:
        return ''
    lines = list(dict.fromkeys(name for point in points for name in point if name != 'step'))
    svg = plots.to_svg(plots.curves(points, lines, score), 'scores')
    return elements.figures(
        [elements.figure(svg, f'{score} over training', f'Protocol {first}, lower is better.')]
    )


def protocols(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns how the scores of each protocol were measured, by its id."""
    return ''.join(
        f'<h3>Protocol {name}</h3>'
        + elements.definitions(
            facts.measured(protocol)
            | {'Noise': f'seeds {", ".join(map(str, protocol["seeds"]))} in the first of its rows'}
        )
        for name, protocol in found.items()
    )


def drawn_samples(run: Run, count: int) -> str:
    """Returns `count` samples of the weights over the trajectory; '' for 0."""
    if not run.steps():
        return elements.missing('No samples yet: the trajectory has no step.')
    if not count:
        return elements.missing('No samples were drawn: --samples=0.')
    sampling = run.settings.sampling
    spec = run.sampler_spec(sampling.sampler, run.step(), sampling.ema)
    return samples.draw(run, spec, samples.over_trajectory(run), count)


def render(run: Run, count: int) -> str:
    """Returns the page of a run as HTML text, with `count` samples of each of some weights."""
    configs = {'config.json': run.config.to_dict(), 'data_card.json': run.card}
    if (run.workdir / ORIGIN).exists():
        configs[ORIGIN] = run_folder.read_record(run.workdir, ORIGIN, dict)
    sections = [
        Section('What it is', elements.definitions(identity(run)) + warnings(run)),
        Section('Training', training(run)),
        Section('Samples', drawn_samples(run, count)),
        Section('Averages of the weights', stored_averages(run)),
        Section('Scores', scores(run)),
        Section('Settings', elements.settings(configs)),
    ]
    return elements.document(title(run), lead(run), sections)
