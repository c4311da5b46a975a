"""Search: `python -m cm_jax.search --config=configs/digits_lcsc.py --workdir=runs/lcsc`.

Searches the linear combination of a run's snapshots with the lowest Fréchet distance (LCSC). The
search noise, the selection noise and the report noise are disjoint streams: candidates are ranked on
the first, the best of them again on the second, and the winner is reported on the third, which
nothing was chosen by. Writes a run folder that `sample` and `evaluate` open, `coefficients.json`,
`search.jsonl` (every candidate) and `report.json`: the winner beside the last snapshot, the run's
own averages, the best EMA profile and the uniform average, all on report noise.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags
from etils import epath
from ml_collections import config_flags
from tqdm import tqdm

from cm_jax import checkpoint, commands, sharding
from cm_jax import config as configs
from cm_jax.errors import UserError, call
from cm_jax.lcsc import combine, search, storage
from cm_jax.lcsc.fitness import make_fitness
from cm_jax.logs import append_json_line, write_grid, write_text
from cm_jax.run import CARD, RAW, TRAJECTORY, Run, item_name, open_run
from cm_jax.scores import Scorer, build_sampler
from cm_jax.wiring import evaluation, open_reference

_CONFIG = config_flags.DEFINE_config_file('config', None, 'e.g. configs/digits_lcsc.py')
_WORKDIR = flags.DEFINE_string('workdir', None, 'the folder for the result')
_FRESH = flags.DEFINE_bool('fresh', False, 'set the folder of another search aside')

SEARCH = 'search.json'


class Basis(NamedTuple):
    """A search config's `basis` section: the snapshots of `workdir` that are combined."""

    workdir: str
    start: int
    stop: int | None
    every: int
    ema: str


class Budget(NamedTuple):
    """A search config's `budget` section."""

    sampler: str
    generations: int  # after the first, which scores the named profiles
    samples: int  # a candidate
    batch_size: int
    seed: int  # of the search noise
    finalists: int  # ranked again on selection noise, by the mean over its seeds
    selection_seeds: tuple[int, ...]


class Job(NamedTuple):
    """A search, opened and checked, before any compute."""

    run: Run
    steps: list[int]
    ema: str
    budget: Budget
    state: search.SearchState


def open_job(config: Any) -> Job:
    """Raises UserError on whatever is wrong in the config or the run that it names."""
    basis = call('basis', Basis, config.basis)
    budget = call('budget', Budget, config.budget)
    run = open_run(basis.workdir)
    steps = combine.window(run.steps(), basis.start, basis.stop, basis.every)
    state = search.init(jax.random.key(config.seed), len(steps), **config.search)
    build_sampler(budget.sampler, run.parts.subject)
    if budget.batch_size < 1 or budget.samples < 2 or budget.samples % budget.batch_size:
        raise UserError(
            f'config.budget.samples {budget.samples} is no multiple of the batch_size '
            f'{budget.batch_size}'
        )
    if budget.generations < 1 or budget.finalists < 1 or not budget.selection_seeds:
        raise UserError(
            'config.budget.generations and finalists must be at least 1, and selection_seeds must '
            f'hold one: got {budget.generations}, {budget.finalists}, {budget.selection_seeds}'
        )
    report = evaluation(config)
    seeds = (budget.seed, *budget.selection_seeds, *report.seeds)
    if len(set(seeds)) < len(seeds):
        raise UserError(
            f'search noise (seed {budget.seed}), selection noise {tuple(budget.selection_seeds)} and '
            f'report noise {tuple(report.seeds)} must be different seeds'
        )
    for spec in report.samplers:
        build_sampler(spec, run.parts.subject)
    return Job(run, steps, basis.ema, budget, state)


def run_search(job: Job, fitness: Any, workdir: epath.Path) -> search.SearchState:
    """Asks, evaluates and tells, a generation at a time; a row of search.jsonl a candidate."""
    state, log = job.state, workdir / 'search.jsonl'
    log.unlink(missing_ok=True)
    with tqdm(total=job.budget.generations + 1, unit=' generations', dynamic_ncols=True) as bar:
        for generation in range(job.budget.generations + 1):
            coefficients, state = search.ask(state)
            scores = fitness(coefficients, job.budget.seed)
            state = search.tell(state, coefficients, scores)
            for row, score in zip(coefficients, scores):
                entry = {'generation': generation, 'score': float(score)}
                append_json_line(log, entry | {'coefficients': row.tolist()})
            bar.set_postfix(best=f'{state.best_score:.4f}')
            bar.update()
    return state


def choose(job: Job, state: search.SearchState, fitness: Any) -> dict[str, Any]:
    """Ranks the finalists, and the EMA profiles among themselves, on selection noise."""

    def select(candidates: np.ndarray) -> tuple[int, np.ndarray]:
        scores = np.mean([fitness(candidates, seed) for seed in job.budget.selection_seeds], axis=0)
        return int(search.ranking(scores)[0]), scores

    finalists = search.ranking(state.scores)[: job.budget.finalists]
    candidates = state.coefficients[finalists]
    winner, scores = select(candidates)
    profiles = search.named_profiles(len(job.steps), state.settings.ema_rates)
    emas = {name: c for name, c in profiles.items() if name.startswith('ema*')}
    best_ema = list(emas)[select(np.stack(list(emas.values())))[0]]
    return {
        'lcsc': candidates[winner],
        'lcsc_search_score': float(state.scores[finalists[winner]]),
        'lcsc_selection_score': float(scores[winner]),
        'ema_name': best_ema,
        'ema': emas[best_ema],
        'uniform': profiles['uniform'],
    }


def report(job: Job, config: Any, scorer: Scorer, stacked: Any, chosen: Mapping) -> list[dict]:
    """The rows of report.json: each model with each sampler on report noise."""
    ev, last = evaluation(config), job.steps[-1]
    models = {'last': stacked_row(stacked, -1)}
    models |= {f'ema {ema}': job.run.params(last, ema) for ema in job.run.emas(last)}
    models |= {chosen['ema_name']: combine.combine(stacked, chosen['ema'])}
    models |= {'uniform': combine.combine(stacked, chosen['uniform'])}
    models |= {'lcsc': combine.combine(stacked, chosen['lcsc'])}
    rows = []
    for name, params in tqdm(models.items(), unit=' models', desc='report', dynamic_ncols=True):
        for spec in ev.samplers:
            row = scorer.score(params, spec, ev.samples, ev.seeds, ema=name, step=last)
            rows.append({'model': name} | row)
    return rows


def stacked_row(stacked: Any, index: int) -> Any:
    """One snapshot of stacked weights."""
    return jax.tree.map(lambda leaf: leaf[index], stacked)


def write_run(job: Job, workdir: epath.Path, params: Any, chosen: Mapping, plain: Mapping) -> None:
    """Makes `workdir` a run folder that holds the winner as its one step."""
    last = job.steps[-1]
    with checkpoint.Stream(workdir / TRAJECTORY) as stream:
        stream.delete_after(-1)
        stream.save(last, {item_name(RAW): params}, {'step': last})
    (job.run.workdir / CARD).copy(workdir / CARD, overwrite=True)
    coefficients = {
        'workdir': str(job.run.workdir),
        'ema': job.ema,
        'steps': job.steps,
        'coefficients': chosen['lcsc'].tolist(),
    }
    write_text(workdir / 'coefficients.json', json.dumps(coefficients, indent=1) + '\n')
    origin = {'made_by': 'lcsc', 'search': plain, **coefficients}
    write_text(workdir / configs.ORIGIN, json.dumps(origin, indent=1) + '\n')
    settings = configs.to_plain(job.run.config)
    settings['sampling'] |= {'sampler': job.budget.sampler, 'ema': ''}
    settings['evaluation'] = plain['evaluation']
    configs.write_config(workdir, settings)


def main(argv: Sequence[str]) -> None:
    del argv
    config = commands.required_config(_CONFIG)
    workdir = commands.required_workdir(_WORKDIR)
    plain = configs.to_plain(config)
    job = open_job(config)
    if _FRESH.value and (aside := configs.set_aside(workdir)):
        print(f'  the old {workdir} is now {aside}')
    if configs.claim_workdir(workdir, plain, SEARCH):
        configs.write_config(workdir, plain, SEARCH)
    elif (workdir / 'report.json').exists():
        print(f'{workdir} is done')
        return
    mesh = sharding.make_mesh()
    extractor, reference = open_reference(job.run.config, evaluation(config))
    stored = storage.store(lambda step: job.run.params(step, job.ema), job.steps)
    print(f'  {len(job.steps)} snapshots, steps {job.steps[0]} to {job.steps[-1]}', flush=True)

    fitness = make_fitness(
        job.run.parts.subject,
        build_sampler(job.budget.sampler, job.run.parts.subject),
        extractor,
        reference,
        stored,
        samples=job.budget.samples,
        batch_size=job.budget.batch_size,
        mesh=mesh,
    )
    state = run_search(job, fitness, workdir)
    chosen = choose(job, state, fitness)
    batch_size = evaluation(config).batch_size
    scorer = Scorer(job.run.parts.subject, extractor, reference, batch_size, mesh)
    rows = report(job, config, scorer, stored.stacked, chosen)
    winner = combine.combine(stored.stacked, chosen['lcsc'])
    write_run(job, workdir, winner, chosen, plain)
    (workdir / 'samples').mkdir(exist_ok=True)
    images = open_run(workdir).sample(winner, job.budget.sampler, 100)
    write_grid(workdir / 'samples' / 'lcsc.png', images, 10, max(1, 48 // images.shape[1]))
    scores = {k: chosen[k] for k in ('lcsc_search_score', 'lcsc_selection_score')}
    write_text(workdir / 'report.json', json.dumps({**scores, 'rows': rows}, indent=1) + '\n')
    for row in rows:
        value, spread = row[extractor.score], row[f'{extractor.score}_std']
        print(f'{row["model"]:<14} {row["protocol"]["sampler"]:<18} {value:.4f} +- {spread:.4f}')


if __name__ == '__main__':
    commands.run(main)
