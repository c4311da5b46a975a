"""A search generation by generation, so that one that was killed goes on as if it had not been.

`<name>_state.json` is the state after the last complete generation, written whole or not at all;
`<name>.jsonl` has a row for each candidate of it. The rows of a generation are written before its
state: a kill between the two leaves rows that the state does not know of, and they are dropped and
written again. The state holds every score to the last bit, so what the search asks for next is the
same, too.
"""

import json
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from tqdm import tqdm

from cm_jax.lcsc import search
from cm_jax.lcsc.fitness import Fitness
from cm_jax.logs import append_json_line, read_json_lines, write_text


class Budget(NamedTuple):
    """How long a search is, and on what noise."""

    generations: int  # after the first, which scores the profiles
    seed: int


def resume(state: search.SearchState, workdir: epath.Path, name: str) -> search.SearchState:
    """The state that `workdir` keeps of the search `name`, or `state`, its start, if there is none.

    Leaves in `<name>.jsonl` what that state knows of.
    """
    saved, rows = workdir / f'{name}_state.json', workdir / f'{name}.jsonl'
    if saved.exists():
        state = search.from_plain(json.loads(saved.read_text()))
    known = [row for row in read_json_lines(rows) if row['generation'] < state.generation]
    write_text(rows, ''.join(json.dumps(row) + '\n' for row in known))
    return state


def run(
    state: search.SearchState, fitness: Fitness, budget: Budget, workdir: epath.Path, name: str
) -> search.SearchState:
    """Asks, evaluates and tells to the end of the budget, from wherever `workdir` stands."""
    state = resume(state, workdir, name)
    total = budget.generations + 1
    with tqdm(
        initial=state.generation, total=total, desc=name, unit=' generations', dynamic_ncols=True
    ) as bar:
        show(bar, state)
        while state.generation < total:
            coefficients, state = search.ask(state)
            scores = fitness(coefficients, budget.seed)
            state = search.tell(state, coefficients, scores)
            for row, score in zip(coefficients, scores):
                entry: dict[str, Any] = {'generation': state.generation - 1, 'score': float(score)}
                append_json_line(workdir / f'{name}.jsonl', entry | {'coefficients': row.tolist()})
            write_text(workdir / f'{name}_state.json', json.dumps(search.to_plain(state)) + '\n')
            bar.update()
            show(bar, state)
    return state


def show(bar: tqdm, state: search.SearchState) -> None:
    """Writes the best score so far behind the bar."""
    if np.isfinite(state.scores).any():
        bar.set_postfix(best=f'{state.best_score:.4f}')
