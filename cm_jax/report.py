"""Compares a teacher, a consistency model, averages of its weights and LCSC: a table and a page.

    python -m cm_jax.report --workdir=runs/quickstart

The teacher is a diffusion model, the consistency model was tuned from it by ECT, and LCSC is the
combination of the consistency model's snapshots that a search has chosen. The command reads the run
folders `teacher`, `ect`, `lcsc` and, if it is there, `lcsc_gradient` of the workdir; --lcsc names
other searches over the same snapshots, one or several:

    python -m cm_jax.report --workdir=runs/mine --lcsc=runs/one --lcsc=runs/other

It writes three files into the workdir: `results.json` (the table), `report.html` (one page that needs
no other file) and `results.png` (samples side by side). The table has a column for each feature space
that the searches report, and marks those that the search of a row used: the others are second opinions.
"""

import functools
import platform
from collections.abc import Callable, Sequence

import jax
import numpy as np
from absl import flags
from etils import epath

from cm_jax import cli
from cm_jax.files import expanded, write_bytes, write_text
from cm_jax.lcsc import plots as search_plots
from cm_jax.lcsc.identity import EMA_STAR
from cm_jax.plotting import COLOURS, scale_to
from cm_jax.reports import page, plots
from cm_jax.reports.inputs import Inputs, Search, load_weights, open_inputs
from cm_jax.reports.opinions import results, table
from cm_jax.reports.page_search import SearchPart, minimised
from cm_jax.reports.rows import (
    NAMES,
    Entry,
    average_entries,
    by_sampler,
    check_comparable,
    counted,
    report_entries,
    teacher_entries,
)
from cm_jax.run import Run
from cm_jax.run_folder import METRICS, write_json
from cm_jax.types import Params

_WORKDIR = cli.workdir_flag('the folder that holds the runs; the report is written into it')
_TEACHER = flags.DEFINE_string('teacher', None, 'run folder; default: WORKDIR/teacher')
_ECT = flags.DEFINE_string('ect', None, 'run folder; default: WORKDIR/ect')
_LCSC = flags.DEFINE_multi_string(
    'lcsc',
    None,
    'folder of a search, repeatable; default: WORKDIR/lcsc and, if it is there, WORKDIR/lcsc_gradient',
)

# The grids of samples: how many images, in rows of how many, from which seed. All models get the same
# noise and the same labels.
COUNT, COLUMNS, SEED = 50, 5, 0


def draw_samples(inputs: Inputs, entries: Sequence[Entry]) -> list[tuple[Entry, np.ndarray]]:
    """Returns the rows that get a grid, each with its samples: uint8 [COUNT,H,W,C].

    These rows are all of the teacher, the ones of ECT and of the best average with the fewest network
    evaluations, and all of LCSC by any search.
    """
    teacher, ect, ema, lcsc = (by_sampler(entries, model) for model in NAMES)

    @functools.cache
    def generator(is_teacher: bool, spec: str) -> Callable[[Params, int], np.ndarray]:
        run = inputs.teacher if is_teacher else inputs.ect  # all others have the network of ECT
        return run.generator(spec, COUNT)

    return [
        (e, generator(e.model == 'teacher', e.sampler)(load_weights(inputs, e), SEED))
        for e in (*teacher, ect[0], ema[0], *lcsc)
    ]


def picture(grids: Sequence[tuple[Entry, np.ndarray]]) -> bytes:
    """Returns results.png: each model's grid with the fewest network evaluations, and the teacher's."""
    fewest = {model: by_sampler([e for e, _ in grids], model)[0].evaluations for model in NAMES}
    panels = [
        plots.Panel(
            images=images,
            title=e.name,
            detail=counted(e.evaluations, 'evaluation'),
            score=f'{e.metric} {e.value:.2f}',
            colour=COLOURS[e.model],
        )
        for e, images in grids
        if e.model == 'teacher' or e.evaluations == fewest[e.model]
    ]
    return plots.comparison(panels, COLUMNS)


def draw_search(search: Search, metric: str, stage: int | None) -> SearchPart:
    """Returns what the page shows of a search whose main score is `metric`.

    `stage` is the length in steps of a stage of ECT's curriculum; None if it has no stages.
    """
    progress = search_plots.progress(
        search.candidates,
        search.random_candidates,
        search.settings.budget.metric or metric,
        search.settings.is_descent,
    )
    coefficients = search_plots.coefficients(
        search.steps,
        np.reshape(search.coefficients, (-1, len(search.steps))),
        search.groups,
        search.average(EMA_STAR),
        search.ema_star,
        stage,
    )
    name = search.report.search
    return SearchPart(
        name=f'LCSC ({name})',
        settings=search.settings,
        metric=minimised(search.settings.budget, metric),
        candidates=len(search.candidates),
        snapshots=len(search.steps),
        progress=plots.to_svg(progress, f'search {name}'),
        coefficients=plots.to_svg(coefficients, f'coefficients {name}'),
    )


def cost(run: Run) -> str:
    """Returns how many images a training run saw, and how fast, as far as its folder tells."""
    rows = run.metrics()
    if not rows:
        return f'its folder, {run.workdir}, holds no {METRICS}'
    speed = np.median([row['images_per_s'] for row in rows])
    return (
        f'{rows[-1]["images"]:,} images seen in training ({rows[-1]["step"]:,} steps of '
        f'{run.config.batch_size}), {speed:,.0f} images/s'
    )


def search_cost(search: Search) -> str:
    """Returns what a search cost: candidates, and network evaluations of an image."""
    parts = [f'{number:,} for {what}' for what, number in search.cost.items()]
    back = ' (a pass back counts 2)' if search.settings.is_descent else ''
    return (
        f'no training; {len(search.candidates):,} candidates; network evaluations of an image{back}: '
        f'{", ".join(parts)}'
    )


def facts(inputs: Inputs) -> dict[str, str]:
    """Returns, by term, what the runs cost and where the page was made."""
    device = jax.devices()[0]
    return {
        'Teacher': cost(inputs.teacher),
        'ECT': f'{cost(inputs.ect)}; it starts from the weights of '
        f'{inputs.ect.config.init_from.workdir or "no other run"}',
        **{f'LCSC ({s.report.search})': search_cost(s) for s in inputs.searches},
        'Data': f'{inputs.ect.card["name"]}, split {inputs.ect.card["split"]}: '
        f'{inputs.ect.card["count"]:,} images of {"×".join(map(str, inputs.ect.card["image_shape"]))}',
        'This page': f'JAX {jax.__version__}, Python {platform.python_version()}, '
        f'{jax.device_count()} × {device.device_kind}',
    }


def make_page(
    inputs: Inputs, entries: Sequence[Entry], grids: Sequence[tuple[Entry, np.ndarray]]
) -> page.Page:
    """Returns everything that the page shows. `grids` are the samples that `draw_samples` returned."""
    metric, scale = entries[0].metric, scale_to(80, grids[0][1].shape[1])
    stage = inputs.ect.settings.objective.get('double_every')
    return page.Page(
        dataset=inputs.ect.card['name'],
        entries=entries,
        averages=average_entries(inputs.reports),
        grids=[
            (e, plots.to_png(plots.tile(images, COLUMNS, scale, gap=scale // 2 + 1)))
            for e, images in grids
        ],
        grid_note=f'Nothing is picked: the first {COUNT} samples of noise seed {SEED}. The same place '
        'in two grids is the same noise (and the same class, where there are classes).',
        plots={
            name: plots.to_svg(plots.training(rows, name, stages), name)
            for name, rows, stages in (
                ('teacher', inputs.teacher.metrics(), None),
                ('ect', inputs.ect.metrics(), stage),
            )
            if rows
        },
        stage=stage,
        searches=[draw_search(search, metric, stage) for search in inputs.searches],
        facts=facts(inputs),
        settings={
            'Teacher: config.json': inputs.teacher.config.to_dict(),
            'ECT: config.json': inputs.ect.config.to_dict(),
            **{f'LCSC ({s.report.search}): search.json': s.config for s in inputs.searches},
        },
    )


def main(argv: Sequence[str]) -> None:
    del argv
    workdir = cli.required_workdir(_WORKDIR)
    teacher, ect, lcsc, gradient = (
        workdir / name for name in ('teacher', 'ect', 'lcsc', 'lcsc_gradient')
    )
    searches = _LCSC.value or [lcsc, *([gradient] if gradient.exists() else [])]
    inputs = open_inputs(
        epath.Path(expanded(_TEACHER.value or teacher)),
        epath.Path(expanded(_ECT.value or ect)),
        [epath.Path(expanded(folder)) for folder in searches],
    )
    rows = report_entries(inputs.reports)
    entries = teacher_entries(inputs.teacher, rows[-1].row) + rows
    check_comparable(entries)
    grids = draw_samples(inputs, entries)
    workdir.mkdir(parents=True, exist_ok=True)
    write_json(workdir / 'results.json', results(entries))
    write_bytes(workdir / 'results.png', picture(grids))
    write_text(workdir / 'report.html', page.render(make_page(inputs, entries, grids)))
    print(table(entries))
    print(f'\nreport: {workdir / "report.html"}')


if __name__ == '__main__':
    cli.run(main)
