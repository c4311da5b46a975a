"""A comparison of a teacher, a consistency model, averages of its weights and LCSC.

It draws the samples and the pictures, and `comparison_page` makes them a page.
"""

import functools
from collections.abc import Callable, Sequence

import numpy as np
from etils import epath

from cm_jax.files import write_bytes, write_text
from cm_jax.plotting import COLOURS, scale_to
from cm_jax.reports import comparison_page, facts, plots
from cm_jax.reports.inputs import Inputs, load_weights
from cm_jax.reports.opinions import results
from cm_jax.reports.page_search import draw_search, search_cost
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
from cm_jax.run_folder import PAGE, write_json
from cm_jax.types import Params

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


def terms(inputs: Inputs) -> dict[str, str]:
    """Returns, by term, what the runs cost and where the page was made."""
    return {
        'Teacher': facts.cost(inputs.teacher),
        'ECT': f'{facts.cost(inputs.ect)}; it starts from the weights of '
        f'{inputs.ect.config.init_from.workdir or "no other run"}',
        **{f'LCSC ({s.report.search})': search_cost(s) for s in inputs.searches},
        'Data': facts.data(inputs.ect.card),
        'This page': facts.environment(),
    }


def make_page(
    inputs: Inputs, entries: Sequence[Entry], grids: Sequence[tuple[Entry, np.ndarray]]
) -> comparison_page.Page:
    """Returns everything that the page shows. `grids` are the samples that `draw_samples` returned."""
    metric, scale = entries[0].metric, scale_to(80, grids[0][1].shape[1])
    stage = inputs.ect.settings.objective.get('double_every')
    return comparison_page.Page(
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
            name: plots.to_svg(plots.curves(rows, ('loss', 'distance'), 'loss', name, stages), name)
            for name, rows, stages in (
                ('teacher', inputs.teacher.metrics(), None),
                ('ect', inputs.ect.metrics(), stage),
            )
            if rows
        },
        stage=stage,
        searches=[draw_search(search, metric, stage) for search in inputs.searches],
        facts=terms(inputs),
        settings={
            'Teacher: config.json': inputs.teacher.config.to_dict(),
            'ECT: config.json': inputs.ect.config.to_dict(),
            **{f'LCSC ({s.report.search}): search.json': s.config for s in inputs.searches},
        },
    )


def write(workdir: epath.Path, inputs: Inputs) -> list[Entry]:
    """Writes results.json, results.png and report.html into `workdir`; returns the rows of the table.

    Raises UserError if a score is missing, or if the scores were not measured alike.
    """
    rows = report_entries(inputs.reports)
    entries = teacher_entries(inputs.teacher, rows[-1].row) + rows
    check_comparable(entries)
    grids = draw_samples(inputs, entries)
    workdir.mkdir(parents=True, exist_ok=True)
    write_json(workdir / 'results.json', results(entries))
    write_bytes(workdir / 'results.png', picture(grids))
    page = make_page(inputs, entries, grids)
    write_text(workdir / PAGE, comparison_page.render(page))
    return entries
