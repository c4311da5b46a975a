"""A search generation by generation, so that one that was killed goes on as if it had not been.

`<name>_state.json` is the state after the last complete generation, written whole or not at all;
`<name>.jsonl` has a row for each candidate. The rows of a generation are written before its state: a
kill between the two leaves rows that the state does not know of, and they are dropped and written
again. The state holds every score to the last bit, so what the search asks for next is the same, too.

    {"generation": 0, "profile": {"kind": "ema*", "label": "ema* 0.9"}, "score": ..., ...}

The candidates of generation 0 are the profiles; `profile` is null in every other row.

All candidates of a search are scored on the samples number 0 to n - 1 of its stream of noise, but for
those of the method 'gradient': its step number t, from 1, is scored on the n samples from t n on.
"""

from typing import Any

import numpy as np
from etils import epath

from cm_jax.files import append_json_line, drop_json_lines, numbered_json_lines
from cm_jax.lcsc import ask_tell
from cm_jax.lcsc.ask_tell import SearchState
from cm_jax.lcsc.derivative import Differentiate
from cm_jax.lcsc.fitness import Fitness
from cm_jax.lcsc.identity import Identity
from cm_jax.run_folder import candidates_file, read_record, state_file, write_record
from cm_jax.settings import Budget
from cm_jax.terminal import Progress

KEYS = ('generation', 'score', 'coefficients')  # that every row of a candidate has


def read_candidates(workdir: epath.Path, name: str) -> list[dict[str, Any]]:
    """Returns the rows of the search `name`, with an `Identity` or None as their `profile`.

    Rows of earlier versions have no `profile`: it is worked out from the state of their search.
    """
    rows = numbered_json_lines(workdir / candidates_file(name), *KEYS)
    if rows and 'profile' not in rows[0][1]:
        profiles = ask_tell.profile_identities(_read_state(workdir, name))
        for number, row in rows:
            profile = profiles[number - 1] if number <= len(profiles) else None
            row['profile'] = profile and profile._asdict()
    return [row | {'profile': row['profile'] and Identity(**row['profile'])} for _, row in rows]


def _read_state(workdir: epath.Path, name: str) -> SearchState:
    """Returns the state that `workdir` keeps of the search `name`."""
    return read_record(workdir, state_file(name), ask_tell.from_plain)


def resume(state: SearchState, workdir: epath.Path, name: str) -> SearchState:
    """Returns the state that `workdir` keeps of the search `name`, or `state` if it keeps none.

    Rows of candidates that this state does not know of are dropped.
    """
    if (workdir / state_file(name)).exists():
        state = _read_state(workdir, name)
    unknown = lambda row: row['generation'] >= state.generation  # noqa: E731
    drop_json_lines(workdir / candidates_file(name), unknown, *KEYS)
    return state


def run(
    state: SearchState,
    fitness: Fitness,
    budget: Budget,
    workdir: epath.Path,
    name: str,
    differentiate: Differentiate | None = None,
) -> SearchState:
    """Asks, evaluates and tells to the end of the budget, from wherever `workdir` stands.

    `differentiate` is for the methods that ask for the derivative of the score.
    """
    state = resume(state, workdir, name)
    total = budget.generations + 1  # the first scores the profiles
    with Progress(total, f'{name}:', 'generations', done=state.generation) as bar:
        _show_best(bar, state)
        while state.generation < total:
            coefficients, state = ask_tell.ask(state)
            gradients = None
            if state.wants_gradients and differentiate is not None:
                first = (state.generation - 1) * budget.samples
                found = [differentiate(c, budget.seed, first) for c in coefficients]
                scores = np.array([derivative.score for derivative in found])
                gradients = np.stack([derivative.gradient.ravel() for derivative in found])
            else:
                scores = fitness(coefficients, budget.seed)
            state = ask_tell.tell(state, coefficients, scores, gradients)
            _write_rows(workdir / candidates_file(name), state, coefficients, scores)
            write_record(workdir / state_file(name), ask_tell.to_plain(state), indent=None)
            _show_best(bar, state)
            bar.update()
    return state


def _write_rows(
    path: epath.Path, state: SearchState, coefficients: np.ndarray, scores: np.ndarray
) -> None:
    """Adds a row for each candidate of the newest generation."""
    generation = state.generation - 1
    profiles: list[Identity | None] = [None] * len(scores)
    if generation == 0:
        profiles = list(ask_tell.profile_identities(state))
    for profile, score, candidate in zip(profiles, scores, coefficients, strict=True):
        row = {
            'generation': generation,
            'profile': profile and profile._asdict(),
            'score': float(score),
            'coefficients': candidate.tolist(),
        }
        append_json_line(path, row)


def _show_best(bar: Progress, state: SearchState) -> None:
    """Writes the best score so far behind the bar."""
    if np.isfinite(state.scores).any():
        bar.show(best=f'{state.best_score:.4f}')
