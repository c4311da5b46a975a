"""Report: `python -m cm_jax.report --workdir=runs/quickstart`.

Compares a diffusion teacher, the consistency model tuned from it (ECT), the averages of its weights
and the combination that LCSC found. Reads the run folders teacher/, ect/ and lcsc/ of the workdir, and
writes into it `results.json` (the table), `report.html` (one page that needs no other file) and
`results.png` (samples side by side).
"""

import dataclasses
import functools
import json
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import flags
from etils import epath

from cm_jax import cli
from cm_jax.config import differences
from cm_jax.errors import UserError
from cm_jax.files import write_text
from cm_jax.lcsc import combine, generations, job, selection
from cm_jax.lcsc import plots as search_plots
from cm_jax.lcsc.identity import EMA, EMA_STAR, LAST, UNIFORM
from cm_jax.plotting import COLOURS, scale_to
from cm_jax.reports import page, plots
from cm_jax.reports.rows import (
    NAMES,
    Entry,
    average_entries,
    by_sampler,
    check_comparable,
    counted,
    report_entries,
    results,
    table,
    teacher_entries,
)
from cm_jax.run import Run, open_run
from cm_jax.run_folder import (
    COEFFICIENTS,
    CONFIG,
    DATA_CARD,
    REPORT,
    SEARCH,
    TRAJECTORY,
    candidates_file,
    write_json,
)
from cm_jax.settings import SearchSettings, parse_search
from cm_jax.types import Params

_WORKDIR = cli.workdir_flag('the folder of the runs; the report goes there')
_TEACHER = flags.DEFINE_string('teacher', None, 'run folder; default WORKDIR/teacher')
_ECT = flags.DEFINE_string('ect', None, 'run folder; default WORKDIR/ect')
_LCSC = flags.DEFINE_string('lcsc', None, 'run folder; default WORKDIR/lcsc')

# The samples shown: the same noise and labels for every model.
COUNT, COLUMNS, SEED = 50, 5, 0

NEEDED = {
    'teacher': (CONFIG, DATA_CARD, TRAJECTORY),
    'ect': (CONFIG, DATA_CARD, TRAJECTORY),
    'lcsc': (SEARCH, REPORT, COEFFICIENTS, candidates_file(job.SEARCH)),
}
MADE_BY = {
    'teacher': 'cm_jax.train --config=configs/digits_edm.py',
    'ect': 'cm_jax.train --config=configs/digits_ect.py --config.init_from.workdir=TEACHER',
    'lcsc': 'cm_jax.search --config=configs/digits_lcsc.py --config.basis.workdir=ECT',
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    """The three runs, and what the search left in its folder."""

    teacher: Run
    ect: Run
    lcsc: Run
    search_config: Mapping[str, Any]
    search: SearchSettings  # the same, parsed
    steps: list[int]  # of the snapshots combined
    ema: str  # which weights of each
    groups: Sequence[str]  # the patterns of the groups of weights
    coefficients: list[float]
    candidates: list[dict[str, Any]]
    random_candidates: list[dict[str, Any]]
    rows: list[dict[str, Any]]  # of report.json

    def profile(self, label: str) -> np.ndarray:
        """Returns the coefficients [K] of the average over the snapshots that has this label."""
        for row in self.candidates:
            if row['profile'] is not None and row['profile'].label == label:
                return np.array(row['coefficients'][: len(self.steps)])  # all groups are alike
        raise UserError(f'{self.lcsc.workdir} has no candidate {label!r}')


def open_inputs(folders: Mapping[str, epath.Path]) -> Inputs:
    """Opens the run folders. Raises UserError naming what is missing and the command that makes it."""
    for model, folder in folders.items():
        for name in NEEDED[model]:
            if not (folder / name).exists():
                raise UserError(
                    f'{folder} has no {name}; this makes it: '
                    f'python -m {MADE_BY[model]} --workdir={folder}'
                )
    runs = {model: open_run(folder) for model, folder in folders.items()}
    lcsc = runs['lcsc'].workdir
    combination, config, report = (
        json.loads((lcsc / name).read_text()) for name in (COEFFICIENTS, SEARCH, REPORT)
    )
    inputs = Inputs(
        **runs,
        search_config=config,
        search=parse_search(config),
        steps=combination['steps'],
        ema=combination['ema'],
        groups=combination['groups'],
        coefficients=combination['coefficients'],
        candidates=generations.read_candidates(lcsc, job.SEARCH),
        random_candidates=generations.read_candidates(lcsc, job.RANDOM),
        rows=selection.read_rows(report['rows']),
    )
    check_basis(inputs)
    return inputs


def check_basis(inputs: Inputs) -> None:
    """Raises UserError unless the search was over snapshots of this very ECT run."""
    mine, theirs = (
        {k: v for k, v in run.config.to_dict().items() if k not in ('sampling', 'evaluation')}
        for run in (inputs.lcsc, inputs.ect)
    )
    differing = differences(mine, theirs)
    if differing or not set(inputs.steps) <= set(inputs.ect.steps()):
        raise UserError(
            f'{inputs.lcsc.workdir} is no search over {inputs.ect.workdir}: '
            f'{"; ".join(differing) or "its snapshots are not there"}'
        )


def load(inputs: Inputs, entry: Entry) -> Params:
    """The weights that a row scored."""
    if entry.model == 'teacher':
        return inputs.teacher.params(None, entry.weights)
    if entry.model == 'lcsc':
        return inputs.lcsc.params()
    kind, label = entry.row['kind'], entry.weights
    if kind == LAST:
        return inputs.ect.params(inputs.steps[-1], inputs.ema)
    if kind in (EMA_STAR, UNIFORM):
        snapshot = lambda step: inputs.ect.params(step, inputs.ema)  # noqa: E731
        return combine.combine(snapshot, inputs.steps, inputs.profile(label))
    stored = label.removeprefix(f'{EMA} ') if kind == EMA else label
    return inputs.ect.params(inputs.steps[-1], stored)


def sampled(inputs: Inputs, entries: Sequence[Entry]) -> list[tuple[Entry, np.ndarray]]:
    """The rows worth a picture, with their samples: the cheapest sampler of all, then LCSC's others."""
    teacher, ect, ema, lcsc = (by_sampler(entries, model) for model in NAMES)
    generator = functools.cache(lambda run, spec: getattr(inputs, run).generator(spec, COUNT))
    runs = {'teacher': 'teacher'}  # the others have the network of ECT
    return [
        (e, generator(runs.get(e.model, 'ect'), e.sampler)(load(inputs, e), SEED))
        for e in (*teacher, ect[0], ema[0], lcsc[0], *lcsc[1:])
    ]


def picture(grids: Sequence[tuple[Entry, np.ndarray]]) -> bytes:
    """results.png: the grids of the fewest steps, and the teacher's."""
    cheapest = {model: by_sampler([e for e, _ in grids], model)[0] for model in NAMES}
    panels = [
        plots.Panel(
            images=images,
            title=NAMES[e.model],
            detail=counted(e.evaluations, 'evaluation'),
            score=f'{e.metric} {e.value:.2f}',
            colour=COLOURS[e.model],
        )
        for e, images in grids
        if e.model == 'teacher' or e is cheapest[e.model]
    ]
    return plots.comparison(panels, COLUMNS)


def draw(inputs: Inputs, stage: int | None) -> dict[str, str]:
    """Returns the curves of the page; `stage` is the length of a stage of ECT's curriculum."""
    averages = average_entries(inputs.rows)
    ema_star = next(entry.weights for entry in averages if entry.row['kind'] == EMA_STAR)
    figures = {
        'teacher': plots.training(inputs.teacher.metrics(), 'teacher', None),
        'ect': plots.training(inputs.ect.metrics(), 'ect', stage),
        'search': search_plots.progress(
            inputs.candidates, inputs.random_candidates, averages[0].metric
        ),
        'coefficients': search_plots.coefficients(
            inputs.steps,
            np.reshape(inputs.coefficients, (-1, len(inputs.steps))),
            inputs.groups,
            inputs.profile(ema_star),
            ema_star,
            stage,
        ),
    }
    return {name: plots.to_svg(figure, name) for name, figure in figures.items()}


def cost(run: Run) -> str:
    """Images seen and speed of a training run."""
    rows = run.metrics()
    speed = np.median([row['images_per_s'] for row in rows])
    return (
        f'{rows[-1]["images"]:,} images seen in training ({rows[-1]["step"]:,} steps of '
        f'{run.config.batch_size}), {speed:,.0f} images/s'
    )


def facts(inputs: Inputs) -> dict[str, str]:
    """What the runs cost, and where the page was made."""
    drawn = len(inputs.candidates) * inputs.search.budget.samples
    device = jax.devices()[0]
    return {
        'Teacher': cost(inputs.teacher),
        'ECT': f'{cost(inputs.ect)}; it starts from the weights of '
        f'{inputs.ect.config.init_from.workdir or "no other run"}',
        'LCSC': f'no training; {len(inputs.candidates)} candidates, {drawn:,} samples generated in '
        'the search',
        'Data': f'{inputs.ect.card["name"]}, split {inputs.ect.card["split"]}: '
        f'{inputs.ect.card["count"]:,} images of {"×".join(map(str, inputs.ect.card["image_shape"]))}',
        'This page': f'JAX {jax.__version__}, Python {platform.python_version()}, '
        f'{jax.device_count()} × {device.device_kind}',
    }


def make_page(inputs: Inputs, entries: Sequence[Entry], grids: Sequence) -> page.Page:
    """Everything that the page shows."""
    scale = scale_to(80, grids[0][1].shape[1])
    stage = inputs.ect.settings.objective.get('double_every')
    return page.Page(
        dataset=inputs.ect.card['name'],
        entries=entries,
        averages=average_entries(inputs.rows),
        grids=[
            (e, plots.to_png(plots.tile(images, COLUMNS, scale, gap=scale // 2 + 1)))
            for e, images in grids
        ],
        grid_note=f'Nothing is picked: the first {COUNT} samples of noise seed {SEED}. The same place '
        'in two grids is the same noise (and the same class, where there are classes).',
        plots=draw(inputs, stage),
        stage=stage,
        search=inputs.search,
        candidates=len(inputs.candidates),
        snapshots=len(inputs.steps),
        facts=facts(inputs),
        settings={
            'Teacher: config.json': inputs.teacher.config.to_dict(),
            'ECT: config.json': inputs.ect.config.to_dict(),
            'LCSC: search.json': inputs.search_config,
        },
    )


def main(argv: Sequence[str]) -> None:
    del argv
    workdir = cli.required_workdir(_WORKDIR)
    given = {'teacher': _TEACHER.value, 'ect': _ECT.value, 'lcsc': _LCSC.value}
    inputs = open_inputs({k: epath.Path(v or workdir / k).expanduser() for k, v in given.items()})
    rows = report_entries(inputs.rows)
    entries = teacher_entries(inputs.teacher, rows[-1].row['protocol']) + rows
    check_comparable(entries)
    grids = sampled(inputs, entries)
    workdir.mkdir(parents=True, exist_ok=True)
    write_json(workdir / 'results.json', results(entries))
    (workdir / 'results.png').write_bytes(picture(grids))
    write_text(workdir / 'report.html', page.render(make_page(inputs, entries, grids)))
    print(table(entries, len(inputs.steps)))
    print(f'\nreport: {workdir / "report.html"}')


if __name__ == '__main__':
    cli.run(main)
