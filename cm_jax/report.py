"""Report: `python -m cm_jax.report --workdir=runs/quickstart`.

Compares a diffusion teacher, the consistency model tuned from it (ECT), the averages of its weights
and the combination that LCSC found. Reads the run folders teacher/, ect/ and lcsc/ of the workdir, and
writes into it `results.json` (the table), `report.html` (one page that needs no other file) and
`results.png` (samples side by side).
"""

import functools
import json
import platform
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags
from etils import epath

from cm_jax import commands, report_html, report_plots
from cm_jax import config as configs
from cm_jax.errors import UserError
from cm_jax.lcsc import combine, search
from cm_jax.logs import read_json_lines, write_text
from cm_jax.report_rows import (
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
from cm_jax.types import Params

_WORKDIR = flags.DEFINE_string('workdir', None, 'the folder of the runs; the report goes there')
_TEACHER = flags.DEFINE_string('teacher', None, 'run folder; default WORKDIR/teacher')
_ECT = flags.DEFINE_string('ect', None, 'run folder; default WORKDIR/ect')
_LCSC = flags.DEFINE_string('lcsc', None, 'run folder; default WORKDIR/lcsc')

# The samples shown: the same noise and labels for every model.
COUNT, COLUMNS, SEED = 50, 5, 0

NEEDED = {
    'teacher': ('config.json', 'data_card.json', 'trajectory'),
    'ect': ('config.json', 'data_card.json', 'trajectory'),
    'lcsc': ('search.json', 'report.json', 'coefficients.json', 'search.jsonl'),
}
MADE_BY = {
    'teacher': 'cm_jax.train --config=configs/digits_edm.py',
    'ect': 'cm_jax.train --config=configs/digits_ect.py --config.init_from.workdir=TEACHER',
    'lcsc': 'cm_jax.search --config=configs/digits_lcsc.py --config.basis.workdir=ECT',
}


class Inputs(NamedTuple):
    """The three runs, and what the search left in its folder."""

    teacher: Run
    ect: Run
    lcsc: Run
    search: Mapping[str, Any]  # its config
    steps: list[int]  # of the snapshots combined
    ema: str  # which weights of each
    coefficients: list[float]
    candidates: list[dict[str, Any]]
    rows: list[dict[str, Any]]  # of report.json
    profiles: Mapping[str, np.ndarray]  # the averages over the snapshots, as coefficients


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
    found = json.loads((lcsc / 'coefficients.json').read_text())
    plain = json.loads((lcsc / 'search.json').read_text())
    k = len(found['steps'])
    rates = search.init(jax.random.key(0), k, **plain['search']).settings.ema_rates
    inputs = Inputs(
        **runs,
        search=plain,
        steps=found['steps'],
        ema=found['ema'],
        coefficients=found['coefficients'],
        candidates=read_json_lines(lcsc / 'search.jsonl'),
        rows=json.loads((lcsc / 'report.json').read_text())['rows'],
        profiles=search.named_profiles(k, rates),
    )
    check_basis(inputs)
    return inputs


def check_basis(inputs: Inputs) -> None:
    """Raises UserError unless the search was over snapshots of this very ECT run."""
    mine, theirs = (
        {k: v for k, v in run.config.to_dict().items() if k not in ('sampling', 'evaluation')}
        for run in (inputs.lcsc, inputs.ect)
    )
    differing = configs.differences(mine, theirs)
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
    if entry.weights == 'last':
        return inputs.ect.params(inputs.steps[-1], inputs.ema)
    if entry.weights in inputs.profiles:
        snapshot = lambda step: inputs.ect.params(step, inputs.ema)  # noqa: E731
        return combine.combine(snapshot, inputs.steps, inputs.profiles[entry.weights])
    return inputs.ect.params(inputs.steps[-1], entry.weights.removeprefix('ema '))


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
        report_plots.Panel(
            images=images,
            title=NAMES[e.model],
            detail=counted(e.evaluations, 'evaluation'),
            score=f'{e.metric} {e.value:.2f}',
            colour=report_plots.COLOURS[e.model],
        )
        for e, images in grids
        if e.model == 'teacher' or e is cheapest[e.model]
    ]
    return report_plots.comparison(panels, COLUMNS)


def draw(inputs: Inputs, every: int | None) -> dict[str, str]:
    """The curves of the page; `every` is the length of a stage of ECT's curriculum."""
    first = dict(zip(inputs.profiles, (row['score'] for row in inputs.candidates)))
    baseline = min(v for name, v in first.items() if name.startswith('ema*') and v is not None)
    averages = average_entries(inputs.rows)
    name = next(e.weights for e in averages if e.weights.startswith('ema*'))
    found = np.reshape(inputs.coefficients, (-1, len(inputs.steps)))
    profile = inputs.profiles[name]
    return {
        'teacher': report_plots.training(inputs.teacher.metrics(), 'teacher', None),
        'ect': report_plots.training(inputs.ect.metrics(), 'ect', every),
        'search': report_plots.search_progress(inputs.candidates, baseline, averages[0].metric),
        'coefficients': report_plots.coefficients(inputs.steps, found, profile, name, every),
    }


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
    drawn = len(inputs.candidates) * inputs.search['budget']['samples']
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


def make_page(inputs: Inputs, entries: Sequence[Entry], grids: Sequence) -> report_html.Page:
    """Everything that the page shows."""
    scale = max(1, 80 // grids[0][1].shape[1])
    every = inputs.ect.config.objective.to_dict().get('double_every')
    return report_html.Page(
        dataset=inputs.ect.card['name'],
        entries=entries,
        averages=average_entries(inputs.rows),
        grids=[
            (e, report_plots.to_png(report_plots.tile(images, COLUMNS, scale, gap=scale // 2 + 1)))
            for e, images in grids
        ],
        grid_note=f'Nothing is picked: the first {COUNT} samples of noise seed {SEED}. The same place '
        'in two grids is the same noise (and the same class, where there are classes).',
        plots=draw(inputs, every),
        stage=every,
        search=inputs.search,
        candidates=len(inputs.candidates),
        snapshots=len(inputs.steps),
        facts=facts(inputs),
        settings={
            'Teacher: config.json': inputs.teacher.config.to_dict(),
            'ECT: config.json': inputs.ect.config.to_dict(),
            'LCSC: search.json': inputs.search,
        },
    )


def main(argv: Sequence[str]) -> None:
    del argv
    workdir = commands.required_workdir(_WORKDIR)
    given = {'teacher': _TEACHER.value, 'ect': _ECT.value, 'lcsc': _LCSC.value}
    inputs = open_inputs({k: epath.Path(v or workdir / k).expanduser() for k, v in given.items()})
    rows = report_entries(inputs.rows)
    entries = teacher_entries(inputs.teacher, rows[-1].row['protocol']) + rows
    check_comparable(entries)
    commands.set_compilation_cache()
    grids = sampled(inputs, entries)
    workdir.mkdir(parents=True, exist_ok=True)
    write_text(workdir / 'results.json', json.dumps(results(entries), indent=1) + '\n')
    (workdir / 'results.png').write_bytes(picture(grids))
    write_text(workdir / 'report.html', report_html.render(make_page(inputs, entries, grids)))
    print(table(entries, len(inputs.steps)))
    print(f'\nreport: {workdir / "report.html"}')


if __name__ == '__main__':
    commands.run(main)
