"""Searches the linear combination of a run's snapshots that samples best (LCSC).

    python -m cm_jax.search --config=configs/digits_ect_lcsc.py --workdir=runs/digits/ect_lcsc

The search noise, the selection noise and the report noise are disjoint streams. Candidates are ranked
on the first, the best of them again on the second, and the winner is reported on the third, by which
nothing was chosen.

Writes a run folder that `sample` and `evaluate` open, and beside the weights `coefficients.json`,
`search.jsonl` (every candidate; `random.jsonl`, those of the random search), `report.json` (the winner
beside what it is to be compared with: see lcsc/selection.py; `searched` are the scores of the feature
spaces that the search used, `second` those of the others) and pictures: progress.png,
coefficients.png, landscape.png, samples/lcsc.png. Killed at any moment, the same command goes on and
comes to the same result.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from cm_jax import checkpoint, cli, locks, run_folder
from cm_jax.config import to_plain
from cm_jax.lcsc import baselines, generations, plots, selection, snapshots
from cm_jax.lcsc.baselines import Baseline
from cm_jax.lcsc.fitness import make_fitness
from cm_jax.lcsc.identity import LCSC, MEANINGS
from cm_jax.lcsc.job import SEARCH, open_job
from cm_jax.lcsc.opened import open_search
from cm_jax.lcsc.selection import Choice, Chosen
from cm_jax.lcsc.session import Session, cost, open_session
from cm_jax.lcsc.space import ONE
from cm_jax.lcsc.summary import describe
from cm_jax.plotting import save_figure, write_grid
from cm_jax.run import open_run
from cm_jax.run_folder import RAW, write_record
from cm_jax.settings import parse_search
from cm_jax.terminal import plus_minus, progress, say_next

_CONFIG = cli.config_flag('config file of a search, e.g. configs/digits_ect_lcsc.py')
_WORKDIR = cli.workdir_flag('the folder for the result')
_FRESH = cli.fresh_flag()


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
    chosen = Chosen(choices, best_baselines(session))
    selection.save_chosen(path, chosen)
    return chosen


def best_baselines(session: Session) -> dict[str, Baseline]:
    """Returns the scanned baselines with the best scores on selection noise, by their kinds."""
    job, seeds = session.job, session.job.settings.budget.selection_seeds
    found: dict[str, Baseline] = {}
    if job.scanned:
        rows = np.stack([np.tile(one.coefficients, job.space.groups) for one in job.scanned])
        found |= baselines.best(job.scanned, rows, session.fitness, seeds)
    if job.posthoc:
        last, names = job.steps[-1], [one.identity.label for one in job.posthoc]
        placed = session.place(lambda name: job.run.params(last, name), names)
        fitness = make_fitness(session.criterion, session.values_of(placed, ONE), session.units)
        found |= baselines.best(job.posthoc, np.eye(len(names)), fitness, seeds)
    return found


def score_landscape(session: Session) -> None:
    """Scores the plane through three snapshots, row by row, into a file, unless it is there."""
    job, path = session.job, session.workdir / run_folder.LANDSCAPE
    size = job.settings.controls.landscape
    if not size or path.exists():
        return
    grid, scores = plots.plane(len(job.steps), size), []
    rows = np.split(grid.coefficients(len(job.steps), job.space.groups), len(grid.y))
    for row in progress(rows, len(rows), 'landscape:', 'rows'):
        scores += session.fitness(row, job.settings.budget.seed).tolist()
    write_record(path, {'scores': [s if np.isfinite(s) else None for s in scores]}, indent=None)


def write_run(session: Session, choice: Choice, plain: Mapping[str, Any]) -> None:
    """Makes the folder a run folder that holds the winner as its one step."""
    job, workdir = session.job, session.workdir
    last, params = job.steps[-1], session.combined(choice.coefficients)
    with checkpoint.Stream(workdir / run_folder.TRAJECTORY) as stream:
        stream.delete_after(-1)
        stream.save(last, {run_folder.item_name(RAW): params}, {'step': last})
    card = run_folder.DATA_CARD
    (job.run.workdir / card).copy(workdir / card, overwrite=True)
    coefficients = {**job.origin(), 'coefficients': choice.coefficients.tolist()}
    write_record(workdir / run_folder.COEFFICIENTS, coefficients)
    origin = {'made_by': 'lcsc', 'search': plain, **coefficients}
    write_record(workdir / run_folder.ORIGIN, origin)
    config, sampler = to_plain(job.run.config), job.settings.budget.sampler
    config['sampling'] |= {'sampler': sampler, 'ema': RAW}
    config['evaluation'] = plain['evaluation'] | {'samplers': list(job.evaluation.samplers)}
    run_folder.write_config(workdir, config)
    (workdir / run_folder.SAMPLES).mkdir(exist_ok=True)
    images = open_run(workdir).sample(params, sampler, 100)
    write_grid(workdir / run_folder.COMBINED_SAMPLES, images, columns=10)


def draw(workdir: epath.Path) -> None:
    """Draws the pictures, from what the search left in its folder."""
    search = open_search(workdir)
    pictures = {
        run_folder.PROGRESS_PLOT: search.plot_progress,
        run_folder.COEFFICIENTS_PLOT: search.plot_coefficients,
    }
    if search.settings.controls.landscape:
        pictures[run_folder.LANDSCAPE_PLOT] = search.plot_landscape
    for name, picture in pictures.items():
        save_figure(workdir / name, picture())


def report(session: Session, chosen: Chosen, plain: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Scores the models of the report, writes the run folder and the pictures; returns the rows."""
    job, workdir, winner = session.job, session.workdir, chosen.choices[LCSC]
    models = selection.models(
        job.snapshots, job.settings.basis.ema, job.averages, chosen, session.combined
    )
    if job.settings.controls.reported:
        kinds = {*job.settings.controls.reported, LCSC}
        models = (model for model in models if model.identity.kind in kinds)
    rows_path = workdir / run_folder.REPORT_ROWS
    rows = selection.report_rows(models, session.scorer, job.evaluation, job.steps[-1], rows_path)
    write_run(session, winner, plain)
    draw(workdir)
    summary = {
        'lcsc_search_score': winner.search_score,
        'lcsc_selection_score': winner.selection_score,
        'cost': cost(job),
        'searched': session.searched,
        'second': session.second,
        'rows': rows,
    }
    write_record(workdir / run_folder.REPORT, summary)
    return rows


def report_line(row: Mapping[str, Any], searched: Sequence[str], second: Sequence[str]) -> str:
    """Returns a row of the report for the terminal, with a * behind the scores that were searched.

    A row that an earlier version has stored has the first score alone.
    """
    scores = []
    for name in [name for name in row if name in (*searched, *second)]:
        value = math.nan if row[name] is None else row[name]
        spread = plus_minus(value, row[f'{name}_std'])
        scores.append(f'{name} {spread}{"*" if name in searched else ""}')
    return f'{row["label"]:<14} {row["protocol"]["sampler"]:<18} {"  ".join(scores)}'


def end(workdir: epath.Path, winner: Choice | None = None) -> None:
    """Says where the result is, what won in this search, and which commands use it."""
    if winner and winner.profile:
        print(
            f'the best candidate is {winner.profile.label}, an average that the search started from'
        )
    pictures = f'{run_folder.PROGRESS_PLOT}, {run_folder.COEFFICIENTS_PLOT}'
    print(f'{workdir} is done: a run folder with the combined weights; {run_folder.REPORT} has the')
    print(f'  scores, and pictures are {pictures}, {run_folder.COMBINED_SAMPLES}')
    say_next([f'{command} --workdir={workdir}' for command in ('sample', 'evaluate')])


def main(argv: Sequence[str]) -> None:
    del argv
    config = cli.required_config(_CONFIG)
    workdir = cli.required_workdir(_WORKDIR)
    plain = to_plain(config)
    job = open_job(parse_search(config.to_dict()))
    is_new = _FRESH.value or run_folder.is_new(workdir, plain, run_folder.SEARCH)
    locks.check_free(workdir)
    if not is_new and selection.is_done(workdir):
        end(workdir)
        return
    session = open_session(job, workdir)
    with run_folder.claim(workdir, plain, run_folder.SEARCH, fresh=_FRESH.value):
        snapshots.keep(workdir, job.origin())
        for lost in filter(None, (run.lost_snapshots() for run in job.runs)):
            print(f'  warning: {lost}')
        print(describe(session), flush=True)
        chosen = search_and_choose(session)
        score_landscape(session)
        rows = report(session, chosen, plain)
    for row in rows:
        print(report_line(row, session.searched, session.second))
    print('lower is better; * in a space that the search used: the others are second opinions')
    for kind in dict.fromkeys(row['kind'] for row in rows):
        print(f'  {kind:<8} {MEANINGS[kind]}')
    end(workdir, chosen.choices[LCSC])


if __name__ == '__main__':
    cli.run(main)
