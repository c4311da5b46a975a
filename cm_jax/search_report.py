"""What a search reports: who is chosen, on selection noise, and how the chosen ones do on report noise.

The models of a report, all scored with the same number of samples on the same noise:

    last           the last snapshot of the window
    ema RATE       an average that the training run itself kept, at that step
    ema* RATE      EMA*: the best of a grid of EMA profiles over the snapshots of the window. Its rate
                   is to a snapshot, not to a step, and its choice is the search's: selection noise
    uniform        the plain average of the snapshots
    posthocSIGMA   the best of a grid of power-function averages (EDM2) made after training, where the
                   run stored what they are made of; chosen on selection noise, too
    random         the best of a random search with as many candidates, chosen as LCSC is
    lcsc           the combination found

Nothing was chosen by the report noise. LCSC's finalists are the best of the search and, with them, the
profiles that it started from, so that on selection noise it is never behind EMA*.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from tqdm import tqdm

from cm_jax.core.ema import POWER
from cm_jax.errors import UserError
from cm_jax.lcsc import search
from cm_jax.lcsc.profiles import stacked_profiles
from cm_jax.logs import append_json_line, read_json_lines, write_text
from cm_jax.run import POSTHOC, Run
from cm_jax.scores import Evaluation, Scorer
from cm_jax.types import Params


class Controls(NamedTuple):
    """A search config's `controls` section: what LCSC is compared with beside the run's averages."""

    random: bool  # a random search with as many candidates
    posthoc: tuple[float, ...]  # sigma_rel of the post-hoc averages to choose from
    landscape: int  # the plane through three snapshots on a grid of n x n candidates; 0 is none


class Choice(NamedTuple):
    """A candidate [G K] chosen on selection noise, with its scores there and on search noise."""

    name: str  # of a profile, or ''
    coefficients: np.ndarray
    search_score: float
    selection_score: float


def profiles(state: search.SearchState) -> dict[str, np.ndarray]:
    """The first candidates of a search by name, each [G K]."""
    rates = state.settings.ema_rates
    rows = stacked_profiles(state.k, state.groups, rates).reshape(-1, state.k * state.groups)
    return dict(zip(search.named_profiles(state.k, rates), rows))


def choose(
    state: search.SearchState, fitness: Callable, finalists: int, seeds: Sequence[int]
) -> dict[str, Choice]:
    """The winner ('lcsc') of the finalists and the profiles, and EMA* ('ema'), by the mean score over
    the seeds of selection noise. Raises UserError if none has a finite one."""
    named = profiles(state)  # the first told
    found = search.ranking(state.scores)
    found = found[found >= len(named)][:finalists]
    indices = np.concatenate([np.arange(len(named)), found])
    names = [*named, *[''] * len(found)]
    candidates = state.coefficients[indices]
    scores = np.mean([fitness(candidates, seed) for seed in seeds], axis=0)

    def best(among: np.ndarray) -> Choice:
        i = among[search.ranking(scores[among])[0]]
        if not np.isfinite(scores[i]):
            raise UserError('no candidate has a finite score on selection noise: nothing to choose')
        return Choice(names[i], candidates[i], float(state.scores[indices[i]]), float(scores[i]))

    emas = np.array([i for i, name in enumerate(named) if name.startswith('ema*')])
    return {'lcsc': best(np.arange(len(scores))), 'ema': best(emas)}


def posthoc_names(run: Run, step: int, grid: Sequence[float]) -> list[str]:
    """Those of the post-hoc averages `grid` that the run's stored ones can make at `step`; [] where it
    stored none."""
    stored = any(name.startswith(POWER) for name in run.emas(step))
    if grid and not stored:
        print(f'  left out: post-hoc averages; the run stored none to make them of at step {step}')
    names = []
    for sigma_rel in grid if stored else ():
        try:
            run.posthoc(step, f'{POSTHOC}{sigma_rel}')
        except UserError as error:
            print(f'  left out: {error}')
        else:
            names.append(f'{POSTHOC}{sigma_rel}')
    return names


def save_chosen(path: epath.Path, chosen: Mapping[str, Choice], posthoc: str) -> None:
    """Keeps the choice for a search that is killed in its report."""
    plain = {
        name: choice._asdict() | {'coefficients': choice.coefficients.tolist()}
        for name, choice in chosen.items()
    }
    write_text(path, json.dumps({'choices': plain, 'posthoc': posthoc}, indent=1) + '\n')


def load_chosen(path: epath.Path) -> tuple[dict[str, Choice], str]:
    """What `save_chosen` wrote: the choices, and the post-hoc average or ''."""
    plain = json.loads(path.read_text())
    found = {
        name: Choice(**choice)._replace(coefficients=np.array(choice['coefficients']))
        for name, choice in plain['choices'].items()
    }
    return found, plain['posthoc']


def models(
    run: Run,
    steps: Sequence[int],
    ema: str,
    chosen: Mapping[str, Choice],
    posthoc: str,
    combined: Callable[[np.ndarray], Params],
) -> Iterator[tuple[str, Callable[[], Params]]]:
    """Each model of the report with what loads its weights; `combined` makes those of candidates."""
    last, k = steps[-1], len(steps)
    yield 'last', lambda: run.params(last, ema)
    for name in run.emas(last):
        yield f'ema {name}', lambda name=name: run.params(last, name)
    yield chosen['ema'].name, lambda: combined(chosen['ema'].coefficients)
    groups = len(chosen['lcsc'].coefficients) // k
    yield 'uniform', lambda: combined(np.full(groups * k, 1 / k))
    if posthoc:
        yield posthoc, lambda: run.params(last, posthoc)
    if 'random' in chosen:
        yield 'random', lambda: combined(chosen['random'].coefficients)
    yield 'lcsc', lambda: combined(chosen['lcsc'].coefficients)


def rows(
    models: Iterator[tuple[str, Callable[[], Params]]],
    scorer: Scorer,
    ev: Evaluation,
    step: int,
    path: epath.Path,
) -> list[dict[str, Any]]:
    """Each model with each sampler on report noise. What `path` has of them already is not scored
    again."""
    done = {(row['model'], row['protocol']['sampler']): row for row in read_json_lines(path)}
    write_text(path, ''.join(json.dumps(row) + '\n' for row in done.values()))
    found = []
    for name, load in tqdm(list(models), unit=' models', desc='report', dynamic_ncols=True):
        missing = [spec for spec in ev.samplers if (name, spec) not in done]
        params = load() if missing else None
        for spec in ev.samplers:
            if spec in missing:
                row = scorer.score(params, spec, ev.samples, ev.seeds, ema=name, step=step)
                done[name, spec] = append_json_line(path, {'model': name} | row)
            found.append(done[name, spec])
    return found
