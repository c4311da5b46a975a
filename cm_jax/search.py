"""Search: `python -m cm_jax.search --config=configs/digits_lcsc.py --workdir=runs/lcsc`.

Searches the linear combination of a run's snapshots that samples best (LCSC). The search noise, the
selection noise and the report noise are disjoint streams: candidates are ranked on the first, the best
of them again on the second, and the winner is reported on the third, which nothing was chosen by.

Writes a run folder that `sample` and `evaluate` open, and beside the weights `coefficients.json`,
`search.jsonl` (every candidate; `random.jsonl`, those of the random search), `report.json` (the winner
beside what it is to be compared with: see search_report.py) and pictures: progress.png,
coefficients.png, landscape.png, samples/lcsc.png. Killed at any moment, the same command goes on and
comes to the same result.
"""

import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags
from etils import epath
from ml_collections import config_flags
from tqdm import tqdm

from cm_jax import checkpoint, commands, search_generations, search_plots, search_report, sharding
from cm_jax import config as configs
from cm_jax.generate import build_sampler
from cm_jax.lcsc import combine, metric, search, space, storage
from cm_jax.lcsc.fitness import Fitness, make_fitness
from cm_jax.logs import read_json_lines, write_grid, write_text
from cm_jax.run import CARD, RAW, TRAJECTORY, item_name, open_run
from cm_jax.scores import Scorer
from cm_jax.search_job import Job, open_job
from cm_jax.search_report import Choice
from cm_jax.types import Params
from cm_jax.wiring import open_reference

_CONFIG = config_flags.DEFINE_config_file('config', None, 'e.g. configs/digits_lcsc.py')
_WORKDIR = flags.DEFINE_string('workdir', None, 'the folder for the result')
_FRESH = flags.DEFINE_bool('fresh', False, 'set the folder of another search aside')

SEARCH, CHOSEN, ROWS, LANDSCAPE = 'search.json', 'chosen.json', 'report.jsonl', 'landscape.json'


def search_and_choose(
    job: Job,
    fitness: Callable[[], Fitness],
    scores: Callable[[storage.Stored, space.Space], Fitness],
    workdir: epath.Path,
) -> tuple[dict[str, Choice], str]:
    """Searches, then chooses on selection noise, unless `workdir` has the choice already."""
    budget, path = job.budget, workdir / CHOSEN
    if path.exists():
        return search_report.load_chosen(path)
    chosen = {}
    for name, state in job.states.items():
        length = search_generations.Budget(budget.generations, budget.seed)
        state = search_generations.run(state, fitness(), length, workdir, name)
        found = search_report.choose(state, fitness(), budget.finalists, budget.selection_seeds)
        chosen |= found if name == 'search' else {name: found['lcsc']}
    posthoc = ''
    if job.posthoc:
        load = lambda name: job.run.params(job.steps[-1], name)  # noqa: E731
        kept = {'where': job.basis.storage, 'dtype': job.basis.dtype}
        of_each = scores(storage.store(load, job.posthoc, **kept), space.ONE)
        each = np.eye(len(job.posthoc))
        means = np.mean([of_each(each, seed) for seed in budget.selection_seeds], axis=0)
        best = search.ranking(means)[0]
        posthoc = job.posthoc[best] if np.isfinite(means[best]) else ''
    search_report.save_chosen(path, chosen, posthoc)
    return chosen, posthoc


def landscape(job: Job, fitness: Callable[[], Fitness], path: epath.Path) -> None:
    """Scores the plane through three snapshots, row by row, into a file, unless it is there."""
    if not job.controls.landscape or path.exists():
        return
    grid, values = search_plots.plane(len(job.steps), job.controls.landscape), []
    rows = np.split(grid.coefficients(len(job.steps), job.space.groups), len(grid.y))
    for row in tqdm(rows, unit=' rows', desc='landscape', dynamic_ncols=True):
        values += fitness()(row, job.budget.seed).tolist()
    plain = [v if np.isfinite(v) else None for v in values]
    write_text(path, json.dumps(plain) + '\n')


def cost(job: Job, evaluations: int) -> dict[str, int]:
    """Network evaluations that the search itself took: on search and on selection noise."""
    state, budget = job.states['search'], job.budget
    first = len(search_report.profiles(state))
    children = budget.generations * state.settings.population
    selected = (first + min(budget.finalists, children)) * len(budget.selection_seeds)
    each = budget.samples * evaluations
    return {'search': (first + children) * each, 'selection': selected * each}


def write_run(job: Job, workdir: epath.Path, params: Params, chosen: Choice, plain: Any) -> None:
    """Makes `workdir` a run folder that holds the winner as its one step."""
    last = job.steps[-1]
    with checkpoint.Stream(workdir / TRAJECTORY) as stream:
        stream.delete_after(-1)
        stream.save(last, {item_name(RAW): params}, {'step': last})
    (job.run.workdir / CARD).copy(workdir / CARD, overwrite=True)
    coefficients = {
        'workdir': str(job.run.workdir),
        'ema': job.basis.ema,
        'steps': job.steps,
        'groups': list(job.space.patterns),
        'coefficients': chosen.coefficients.tolist(),
    }
    write_text(workdir / 'coefficients.json', json.dumps(coefficients, indent=1) + '\n')
    origin = {'made_by': 'lcsc', 'search': plain, **coefficients}
    write_text(workdir / configs.ORIGIN, json.dumps(origin, indent=1) + '\n')
    settings = configs.to_plain(job.run.config)
    settings['sampling'] |= {'sampler': job.budget.sampler, 'ema': ''}
    settings['evaluation'] = plain['evaluation'] | {'samplers': list(job.evaluation.samplers)}
    configs.write_config(workdir, settings)
    (workdir / 'samples').mkdir(exist_ok=True)
    images = open_run(workdir).sample(params, job.budget.sampler, 100)
    write_grid(workdir / 'samples' / 'lcsc.png', images, 10, max(1, 48 // images.shape[1]))


def draw(job: Job, workdir: epath.Path, chosen: Mapping[str, Choice], score: str) -> None:
    """The pictures, from what the search left in its folder."""
    k, state, found = len(job.steps), job.states['search'], chosen['lcsc'].coefficients
    searched, random = (read_json_lines(workdir / f'{n}.jsonl') for n in ('search', 'random'))
    first = dict(zip(search_report.profiles(state), (row['score'] for row in searched)))
    emas = [v for name, v in first.items() if name.startswith('ema*') and v is not None]
    figure = search_plots.progress(searched, random, min(emas, default=np.nan), score)
    search_plots.save(figure, workdir / 'progress.png')
    ema = chosen['ema']
    rows, profile = found.reshape(-1, k), ema.coefficients.reshape(-1, k)[0]
    figure = search_plots.coefficients(job.steps, rows, job.space.patterns, profile, ema.name)
    search_plots.save(figure, workdir / 'coefficients.png')
    if job.controls.landscape:
        values = np.array(json.loads((workdir / LANDSCAPE).read_text()), float)
        grid = search_plots.plane(k, job.controls.landscape)
        values = values.reshape(len(grid.y), len(grid.x))
        figure = search_plots.landscape(grid, values, job.steps, score)
        search_plots.save(figure, workdir / 'landscape.png')


def done(workdir: epath.Path) -> bool:
    """Whether a search has come to its end: its report is the last that it writes."""
    return (workdir / 'report.json').exists()


def main(argv: Sequence[str]) -> None:
    del argv
    config = commands.required_config(_CONFIG)
    workdir = commands.required_workdir(_WORKDIR)
    plain = configs.to_plain(config)
    job = open_job(config)
    if not _FRESH.value and not configs.claim_workdir(workdir, plain, SEARCH) and done(workdir):
        print(f'{workdir} is done')
        return
    mesh, ev, subject = sharding.make_mesh(), job.evaluation, job.run.parts.subject
    metrics = metric.sources(job.metric)
    extractor, reference = open_reference(job.run.config, ev, metrics)
    metric.build(extractor, reference, job.metric or extractor.score, job.budget.samples)
    sampler = build_sampler(job.budget.sampler, subject)
    scorer = Scorer(subject, extractor, reference, ev.batch_size, mesh, metrics)
    if _FRESH.value and (aside := configs.set_aside(workdir)):
        print(f'  the old {workdir} is now {aside}')
    if configs.claim_workdir(workdir, plain, SEARCH):
        configs.write_config(workdir, plain, SEARCH)
    print(f'  {len(job.steps)} snapshots, steps {job.steps[0]} to {job.steps[-1]}', flush=True)

    def scores(stored: storage.Stored, groups: space.Space) -> Fitness:
        population = job.states['search'].settings.population
        return make_fitness(
            subject,
            sampler,
            extractor,
            reference,
            stored,
            samples=job.budget.samples,
            batch_size=job.budget.batch_size,
            mesh=mesh,
            metric=job.metric or None,
            space=groups,
            at_once=population if stored.streamed else min(population, 16 * mesh.size),
        )

    def combined(coefficients: np.ndarray) -> Params:
        return combine.combine(job.load, job.steps, coefficients, job.space)

    fitness = functools.cache(lambda: scores(job.store(), job.space))
    chosen, posthoc = search_and_choose(job, fitness, scores, workdir)
    landscape(job, fitness, workdir / LANDSCAPE)
    models = search_report.models(job.run, job.steps, job.basis.ema, chosen, posthoc, combined)
    rows = search_report.rows(models, scorer, ev, job.steps[-1], workdir / ROWS)
    write_run(job, workdir, combined(chosen['lcsc'].coefficients), chosen['lcsc'], plain)
    draw(job, workdir, chosen, job.budget.metric or extractor.score)
    report = {
        'lcsc_search_score': chosen['lcsc'].search_score,
        'lcsc_selection_score': chosen['lcsc'].selection_score,
        'cost': cost(job, sampler.evaluations),
        'rows': rows,
    }
    write_text(workdir / 'report.json', json.dumps(report, indent=1) + '\n')
    for row in rows:
        value, spread = row[extractor.score], row[f'{extractor.score}_std']
        beside = '' if spread is None else f' +- {spread:.4f}'
        value = math.nan if value is None else value
        print(f'{row["model"]:<14} {row["protocol"]["sampler"]:<18} {value:.4f}{beside}')


if __name__ == '__main__':
    commands.run(main)
