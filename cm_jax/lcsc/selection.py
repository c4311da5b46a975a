"""Who is chosen, on selection noise, and how the chosen ones do on report noise.

The models of a report, by their kinds (see lcsc.identity), are the last snapshot; the averages that the
run itself kept; EMA*, the best of a grid of EMA profiles over the snapshots; their uniform average; the
best of the scanned baselines of each kind (see lcsc.baselines); the best of a random search with as
many candidates, chosen as LCSC is; and the combination that LCSC chose. All are scored with the same
number of samples on the same noise, by which nothing was chosen.

LCSC's finalists are the best candidates of the search and, with them, the profiles that it started
from, so that on selection noise it is never behind EMA*.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from cm_jax.errors import UserError
from cm_jax.evaluation.scores import Scorer
from cm_jax.files import append_json_line, read_json_lines, write_json_lines
from cm_jax.lcsc import ask_tell
from cm_jax.lcsc.ask_tell import SearchState
from cm_jax.lcsc.baselines import Baseline
from cm_jax.lcsc.fitness import Fitness
from cm_jax.lcsc.identity import (
    EMA,
    EMA_STAR,
    LAST,
    LCSC,
    POSTHOC,
    RANDOM,
    UNIFORM,
    Identity,
    of_earlier_label,
    of_row,
)
from cm_jax.lcsc.snapshots import Snapshot
from cm_jax.run_folder import REPORT, read_record, write_record
from cm_jax.settings import Evaluation
from cm_jax.terminal import progress
from cm_jax.types import Params


class Choice(NamedTuple):
    """A candidate [G K] chosen on selection noise, with its scores there and on search noise.

    `profile` is who it is if it is one of the profiles that the search started from, else None.
    `search_score` is None for a candidate that was made of others and had no score of its own.
    """

    profile: Identity | None
    coefficients: np.ndarray
    search_score: float | None
    selection_score: float

    def identity(self, kind: str) -> Identity:
        """Returns the profile that was chosen, or, for another candidate, who it is by its kind."""
        return self.profile or Identity(kind, kind)


class Chosen(NamedTuple):
    """The choices of a search by their kind (LCSC, EMA_STAR and, with a control, RANDOM), and the best
    of the scanned baselines by theirs (WINDOW, BEMA, POSTHOC), as far as there are any."""

    choices: Mapping[str, Choice]
    baselines: Mapping[str, Baseline]


class ReportModel(NamedTuple):
    """A model of the report: who it is, and what loads its weights."""

    identity: Identity
    load: Callable[[], Params]


def choose(
    state: SearchState, fitness: Fitness, finalists: int, seeds: Sequence[int]
) -> dict[str, Choice]:
    """Returns the winner (LCSC) of the finalists and the profiles, and the best EMA profile (EMA_STAR).

    They are ranked by the mean score over the seeds of selection noise. Raises UserError if none has a
    finite one.
    """
    profiles = ask_tell.profile_identities(state)  # of the candidates that were told first
    best_found, their_scores = ask_tell.finalists(state, finalists)
    identities = [*profiles, *[None] * len(best_found)]
    candidates = np.concatenate([state.coefficients[: len(profiles)], best_found])
    on_search = np.concatenate([state.scores[: len(profiles)], their_scores])
    scores = np.mean([fitness(candidates, seed) for seed in seeds], axis=0)

    def best(among: np.ndarray) -> Choice:
        i = among[ask_tell.ranking(scores[among])[0]]
        if not np.isfinite(scores[i]):
            raise UserError('no candidate has a finite score on selection noise: nothing to choose')
        return Choice(
            profile=identities[i],
            coefficients=candidates[i],
            search_score=float(on_search[i]) if np.isfinite(on_search[i]) else None,
            selection_score=float(scores[i]),
        )

    emas = np.array([i for i, one in enumerate(profiles) if one.kind == EMA_STAR])
    return {LCSC: best(np.arange(len(scores))), EMA_STAR: best(emas)}


def save_chosen(path: epath.Path, chosen: Chosen) -> None:
    """Keeps the choice for a search that is killed in its report."""
    plain = {
        kind: choice._asdict()
        | {
            'profile': choice.profile and choice.profile._asdict(),
            'coefficients': choice.coefficients.tolist(),
        }
        for kind, choice in chosen.choices.items()
    }
    baselines = {
        kind: {
            'label': one.identity.label,
            'coefficients': one.coefficients.tolist(),
            'selection_score': one.selection_score,
        }
        for kind, one in chosen.baselines.items()
    }
    write_record(path, {'choices': plain, 'baselines': baselines})


def load_chosen(path: epath.Path) -> Chosen:
    """Returns what `save_chosen` wrote, or an earlier version of it.

    Raises UserError if the file is damaged.
    """
    return read_record(path.parent, path.name, _chosen)


def _chosen(plain: Mapping[str, Any]) -> Chosen:
    """Returns the choices in what `save_chosen` wrote."""
    choices = {}
    for kind, stored in plain['choices'].items():
        if 'name' in stored:  # of an earlier version: the label of a profile, or ''
            profile = of_earlier_label(stored['name']) if stored['name'] else None
        else:
            profile = stored['profile'] and Identity(**stored['profile'])
        choices[EMA_STAR if kind == EMA else kind] = Choice(
            profile=profile,
            coefficients=np.array(stored['coefficients']),
            search_score=stored['search_score'],
            selection_score=stored['selection_score'],
        )
    baselines = {
        kind: Baseline(
            Identity(kind, one['label']), np.array(one['coefficients']), one['selection_score']
        )
        for kind, one in plain.get('baselines', {}).items()
    }
    if plain.get('posthoc'):  # of an earlier version, whose one baseline it was
        baselines[POSTHOC] = Baseline(Identity(POSTHOC, plain['posthoc']))
    return Chosen(choices, baselines)


def is_done(workdir: epath.Path) -> bool:
    """Returns whether a search has come to its end: its report is the last file that it writes.

    A report that is damaged does not count. The terminal is told that it is made again.
    """
    if not (workdir / REPORT).exists():
        return False
    try:
        read_record(workdir, REPORT, lambda report: report['rows'])
    except UserError:
        print(f'  {workdir / REPORT} is damaged: it is made again', flush=True)
        return False
    return True


def models(
    snapshots: Sequence[Snapshot],
    ema: str,
    averages: Sequence[str],
    chosen: Chosen,
    combined: Callable[[np.ndarray], Params],
) -> Iterator[ReportModel]:
    """Yields each model of the report; `combined` makes the weights of a candidate.

    `ema` is the average that the snapshots are, and `averages` are those that the run stored.
    """
    (last, run), k, choices = snapshots[-1], len(snapshots), chosen.choices

    def of_choice(kind: str) -> Callable[[], Params]:
        return lambda: combined(choices[kind].coefficients)

    yield ReportModel(Identity(LAST, LAST), lambda: run.params(last, ema))
    for name in averages:
        load = functools.partial(run.params, last, name)
        yield ReportModel(Identity(EMA, f'{EMA} {name}'), load)
    yield ReportModel(choices[EMA_STAR].identity(EMA_STAR), of_choice(EMA_STAR))
    size = len(choices[LCSC].coefficients)
    uniform = np.full(size, 1 / k)
    yield ReportModel(Identity(UNIFORM, UNIFORM), lambda: combined(uniform))
    for one in chosen.baselines.values():
        if len(one.coefficients):
            load = functools.partial(combined, np.tile(one.coefficients, size // k))
        else:
            load = functools.partial(run.params, last, one.identity.label)
        yield ReportModel(one.identity, load)
    if RANDOM in choices:
        yield ReportModel(Identity(RANDOM, RANDOM), of_choice(RANDOM))
    yield ReportModel(Identity(LCSC, LCSC), of_choice(LCSC))


def read_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns the rows of a report with `kind` and `label`, which earlier versions did not store."""
    return [of_row(row)._asdict() | dict(row) for row in rows]


def report_rows(
    models: Iterator[ReportModel],
    scorer: Scorer,
    evaluation: Evaluation,
    step: int,
    path: epath.Path,
) -> list[dict[str, Any]]:
    """Returns the scores of each model with each sampler on report noise.

    A score that the file `path` holds already is not computed again; new ones are added to it.
    """
    stored = read_json_lines(path, 'protocol')
    scored = {(of_row(row), row['protocol']['sampler']): row for row in stored}
    write_json_lines(path, scored.values())
    rows = []
    listed = list(models)
    for model in progress(listed, len(listed), 'report:', 'models'):
        missing = [s for s in evaluation.samplers if (model.identity, s) not in scored]
        params = model.load() if missing else None
        for spec in evaluation.samplers:
            if spec in missing:
                row = scorer.score(
                    params,
                    spec,
                    evaluation.samples,
                    evaluation.seeds,
                    ema=model.identity.label,
                    step=step,
                )
                row = append_json_line(path, model.identity._asdict() | row)
                scored[model.identity, spec] = row
            rows.append(scored[model.identity, spec])
    return read_rows(rows)
