"""Searches the linear combination of a run's snapshots that samples best (LCSC).

    python -m cm_jax.search --config=configs/digits_ect_lcsc.py --workdir=runs/digits/ect_lcsc

The search noise, the selection noise and the report noise are disjoint streams. Candidates are ranked
on the first, the best of them again on the second, and the winner is reported on the third, by which
nothing was chosen.

Writes a run folder that `sample` and `evaluate` open, and beside the weights `coefficients.json`,
`search.jsonl` (every candidate; `random.jsonl`, those of the random search), `report.json` (the winner
beside what it is to be compared with: see lcsc/selection.py) and pictures: progress.png,
coefficients.png, landscape.png, samples/lcsc.png. Killed at any moment, the same command goes on and
comes to the same result.
"""

import dataclasses
import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from jax.sharding import Mesh
from tqdm import tqdm

from cm_jax import checkpoint, cli, run_folder, sharding
from cm_jax.config import to_plain
from cm_jax.errors import UserError
from cm_jax.evaluation.scores import FeatureSpace, Scorer
from cm_jax.files import write_text
from cm_jax.lcsc import ask_tell, combine, derivative, generations, plots, selection, storage
from cm_jax.lcsc import criterion as criteria
from cm_jax.lcsc.criterion import Criterion
from cm_jax.lcsc.derivative import Differentiate, make_derivative
from cm_jax.lcsc.fitness import Fitness, Values, make_fitness, make_values
from cm_jax.lcsc.identity import EMA_STAR, LCSC
from cm_jax.lcsc.job import RANDOM, SEARCH, Job, open_job
from cm_jax.lcsc.selection import Choice, Chosen
from cm_jax.lcsc.space import ONE, Space
from cm_jax.lcsc.storage import Placed
from cm_jax.plotting import save_figure, write_grid
from cm_jax.run import open_run
from cm_jax.run_folder import RAW, write_json
from cm_jax.settings import parse_search
from cm_jax.types import Params
from cm_jax.wiring import open_spaces

_CONFIG = cli.config_flag('e.g. configs/digits_ect_lcsc.py')
_WORKDIR = cli.workdir_flag('the folder for the result')
_FRESH = cli.fresh_flag()

CANDIDATES_A_DEVICE = 16  # whose weights are in memory together, beside stacked snapshots


@dataclasses.dataclass(frozen=True, kw_only=True)
class Session:
    """A search under way: what it was told, its folder, and what it scores candidates with."""

    job: Job
    workdir: epath.Path
    mesh: Mesh
    spaces: Sequence[FeatureSpace]  # the first is that of the report's score
    criterion: Criterion  # what the search minimises
    scorer: Scorer  # of the report

    @functools.cached_property
    def placed(self) -> Placed:
        """The snapshots; they are read when they are asked for first."""
        return self.place(self.job.load, self.job.steps)

    def place(self, load: Callable[[Any], Params], names: Sequence[Any]) -> Placed:
        """Returns the weights `load(name)` as snapshots within reach of the devices."""
        basis = self.job.settings.basis
        stored = storage.store(load, names, where=basis.storage, dtype=basis.dtype)
        return storage.place(stored, self.mesh)

    def values_of(self, placed: Placed, space: Space) -> Values:
        """Returns what measures combinations of snapshots."""
        job, budget = self.job, self.job.settings.budget
        population = job.settings.search['population']
        at_once = min(population, CANDIDATES_A_DEVICE * self.mesh.size)
        return make_values(
            job.run.parts.generative_model,
            job.sampler,
            self.criterion,
            placed,
            samples=budget.samples,
            batch_size=budget.batch_size,
            space=space,
            at_once=population if placed.streamed else at_once,
        )

    @functools.cached_property
    def values(self) -> Values:
        """The metrics of candidates."""
        return self.values_of(self.placed, self.job.space)

    @functools.cached_property
    def units(self) -> np.ndarray:
        """The units of the metrics; relative ones are measured once, and kept in the folder."""
        budget, path = self.job.settings.budget, self.workdir / run_folder.UNITS
        if budget.units == 'given':
            return np.ones(len(self.criterion.names))
        if not path.exists():
            profiles, _ = ask_tell.ask(self.job.states[SEARCH])
            found = self.criterion.units(self.values(profiles, budget.seed))
            write_json(path, dict(zip(self.criterion.names, found.tolist())))
        stored = json.loads(path.read_text())
        return np.array([stored[name] for name in self.criterion.names])

    @functools.cached_property
    def fitness(self) -> Fitness:
        """The score of candidates."""
        return make_fitness(self.criterion, self.values, self.units)

    @functools.cached_property
    def differentiate(self) -> Differentiate:
        """The score of a candidate with its derivative."""
        job = self.job
        return make_derivative(
            job.run.parts.generative_model,
            job.sampler,
            self.criterion,
            self.placed,
            samples=job.settings.budget.samples,
            batch_size=job.gradient_batch,
            space=job.space,
            units=self.units,
        )

    def combined(self, coefficients: np.ndarray) -> Params:
        """Returns the exact weights of a candidate."""
        return combine.combine(self.job.load, self.job.steps, coefficients, self.job.space)


def open_session(job: Job, workdir: epath.Path) -> Session:
    """Opens what candidates are scored with. Raises UserError on a wrong metric."""
    run, evaluation, mesh = job.run, job.evaluation, sharding.make_mesh()
    metrics = criteria.sources(job.metric)
    spaces = open_spaces(run.settings.dataset, evaluation, metrics, unused_kinds=('pr',))
    metric = job.metric or {spaces[0].extractor.score: 1.0}
    criterion = criteria.build(spaces, metric, job.settings.budget.samples)
    if job.settings.search['method'] == 'gradient':
        derivative.check(criterion)
        if job.gradient_batch % mesh.size:
            raise UserError(
                f'config.gradient.batch_size = {job.gradient_batch} is no multiple of the '
                f'{mesh.size} devices, which share each batch'
            )
    scorer = Scorer(run.parts.generative_model, spaces, evaluation.batch_size, mesh)
    return Session(
        job=job, workdir=workdir, mesh=mesh, spaces=spaces, criterion=criterion, scorer=scorer
    )


def search_and_choose(session: Session) -> Chosen:
    """Searches, then chooses on selection noise, unless the folder has the choice already."""
    path, budget = session.workdir / run_folder.CHOSEN, session.job.settings.budget
    if path.exists():
        return selection.load_chosen(path)
    choices: dict[str, Choice] = {}
    for name, start in session.job.states.items():
        state = generations.run(
            start,
            session.fitness,
            session.job.budgets[name],
            session.workdir,
            name,
            session.differentiate if start.method == 'gradient' else None,
        )
        best = selection.choose(state, session.fitness, budget.finalists, budget.selection_seeds)
        choices |= best if name == SEARCH else {name: best[LCSC]}
    chosen = Chosen(choices, best_posthoc(session))
    selection.save_chosen(path, chosen)
    return chosen


def best_posthoc(session: Session) -> str | None:
    """Returns the post-hoc average with the best score on selection noise, or None."""
    job = session.job
    if not job.posthoc:
        return None
    last = job.steps[-1]
    placed = session.place(lambda name: job.run.params(last, name), job.posthoc)
    fitness = make_fitness(session.criterion, session.values_of(placed, ONE), session.units)
    each = np.eye(len(job.posthoc))
    scores = [fitness(each, seed) for seed in job.settings.budget.selection_seeds]
    means = np.mean(scores, axis=0)
    best = ask_tell.ranking(means)[0]
    return job.posthoc[best] if np.isfinite(means[best]) else None


def score_landscape(session: Session) -> None:
    """Scores the plane through three snapshots, row by row, into a file, unless it is there."""
    job, path = session.job, session.workdir / run_folder.LANDSCAPE
    size = job.settings.controls.landscape
    if not size or path.exists():
        return
    grid, scores = plots.plane(len(job.steps), size), []
    rows = np.split(grid.coefficients(len(job.steps), job.space.groups), len(grid.y))
    for row in tqdm(rows, unit=' rows', desc='landscape', dynamic_ncols=True):
        scores += session.fitness(row, job.settings.budget.seed).tolist()
    write_text(path, json.dumps([s if np.isfinite(s) else None for s in scores]) + '\n')


def cost(job: Job) -> dict[str, int]:
    """Returns the network evaluations that the search itself took, on search and selection noise.

    A pass forward counts 1, one back counts 2.
    """
    state, budget = job.states[SEARCH], job.settings.budget
    first = len(ask_tell.profile_identities(state))
    each = budget.samples * job.sampler.evaluations
    if state.method == 'gradient':
        children = budget.generations
        step = derivative.network_passes(job.sampler, budget.samples, job.gradient_batch)
    else:
        children, step = budget.generations * state.settings.population, each
    selected = (first + min(budget.finalists, children)) * len(budget.selection_seeds)
    profiles = first * (1 if budget.units == 'given' else 2) * each
    return {'search': profiles + children * step, 'selection': selected * each}


def write_run(session: Session, choice: Choice, plain: Mapping[str, Any]) -> None:
    """Makes the folder a run folder that holds the winner as its one step."""
    job, workdir = session.job, session.workdir
    last, params = job.steps[-1], session.combined(choice.coefficients)
    with checkpoint.Stream(workdir / run_folder.TRAJECTORY) as stream:
        stream.delete_after(-1)
        stream.save(last, {run_folder.item_name(RAW): params}, {'step': last})
    card = run_folder.DATA_CARD
    (job.run.workdir / card).copy(workdir / card, overwrite=True)
    coefficients = {
        'workdir': str(job.run.workdir),
        'ema': job.settings.basis.ema,
        'steps': list(job.steps),
        'groups': list(job.space.patterns),
        'coefficients': choice.coefficients.tolist(),
    }
    write_json(workdir / run_folder.COEFFICIENTS, coefficients)
    origin = {'made_by': 'lcsc', 'search': plain, **coefficients}
    write_json(workdir / run_folder.ORIGIN, origin)
    config, sampler = to_plain(job.run.config), job.settings.budget.sampler
    config['sampling'] |= {'sampler': sampler, 'ema': RAW}
    config['evaluation'] = plain['evaluation'] | {'samplers': list(job.evaluation.samplers)}
    run_folder.write_config(workdir, config)
    (workdir / run_folder.SAMPLES).mkdir(exist_ok=True)
    images = open_run(workdir).sample(params, sampler, 100)
    write_grid(workdir / run_folder.COMBINED_SAMPLES, images, columns=10)


def draw(session: Session, chosen: Chosen) -> None:
    """Draws the pictures, from what the search left in its folder."""
    job, workdir = session.job, session.workdir
    score = job.settings.budget.metric or session.spaces[0].extractor.score
    searched, random = (generations.read_candidates(workdir, name) for name in (SEARCH, RANDOM))
    figure = plots.progress(searched, random, score)
    save_figure(workdir / run_folder.PROGRESS_PLOT, figure)
    k, ema_star = len(job.steps), chosen.choices[EMA_STAR]
    figure = plots.coefficients(
        job.steps,
        chosen.choices[LCSC].coefficients.reshape(-1, k),
        job.space.patterns,
        ema_star.coefficients.reshape(-1, k)[0],
        ema_star.identity(EMA_STAR).label,
    )
    save_figure(workdir / run_folder.COEFFICIENTS_PLOT, figure)
    if job.settings.controls.landscape:
        scores = np.array(json.loads((workdir / run_folder.LANDSCAPE).read_text()), float)
        grid = plots.plane(k, job.settings.controls.landscape)
        scores = scores.reshape(len(grid.y), len(grid.x))
        figure = plots.landscape(grid, scores, job.steps, score)
        save_figure(workdir / run_folder.LANDSCAPE_PLOT, figure)


def report(session: Session, chosen: Chosen, plain: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Scores the models of the report, writes the run folder and the pictures; returns the rows."""
    job, workdir, winner = session.job, session.workdir, chosen.choices[LCSC]
    models = selection.models(job.run, job.steps, job.settings.basis.ema, chosen, session.combined)
    rows_path = workdir / run_folder.REPORT_ROWS
    rows = selection.report_rows(models, session.scorer, job.evaluation, job.steps[-1], rows_path)
    write_run(session, winner, plain)
    draw(session, chosen)
    summary = {
        'lcsc_search_score': winner.search_score,
        'lcsc_selection_score': winner.selection_score,
        'cost': cost(job),
        'rows': rows,
    }
    write_json(workdir / run_folder.REPORT, summary)
    return rows


def is_done(workdir: epath.Path) -> bool:
    """Returns whether a search has come to its end: its report is the last that it writes."""
    return (workdir / run_folder.REPORT).exists()


def report_line(row: Mapping[str, Any], score: str) -> str:
    """Returns a row of the report for the terminal."""
    value, std = row[score], row[f'{score}_std']
    spread = '' if std is None else f' +- {std:.4f}'
    value = math.nan if value is None else value
    return f'{row["label"]:<14} {row["protocol"]["sampler"]:<18} {value:.4f}{spread}'


def main(argv: Sequence[str]) -> None:
    del argv
    config = cli.required_config(_CONFIG)
    workdir = cli.required_workdir(_WORKDIR)
    plain = to_plain(config)
    job = open_job(parse_search(config.to_dict()))
    is_new = _FRESH.value or run_folder.is_new(workdir, plain, run_folder.SEARCH)
    if not is_new and is_done(workdir):
        print(f'{workdir} is done')
        return
    session = open_session(job, workdir)
    run_folder.claim(workdir, plain, run_folder.SEARCH, fresh=_FRESH.value)
    print(f'  {len(job.steps)} snapshots, steps {job.steps[0]} to {job.steps[-1]}', flush=True)
    chosen = search_and_choose(session)
    score_landscape(session)
    for row in report(session, chosen, plain):
        print(report_line(row, session.spaces[0].extractor.score))


if __name__ == '__main__':
    cli.run(main)
