"""A search that is killed goes on as if it had not been."""

import dataclasses
import json

import numpy as np
import pytest
from etils import epath

from cm_jax.lcsc import ask_tell, generations
from tests.helpers.quadratic_search import BUDGET, Killed, fitness, start


def killed_after(calls):
    """The fitness of a program that is killed in its call number `calls`."""
    left = iter(range(calls))

    def limited(coefficients, seed):
        if next(left, None) is None:
            raise Killed
        return fitness(coefficients, seed)

    return limited


def files(folder):
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


def same(a, b):
    arrays = {'coefficients': 0, 'scores': 0, 'gradients': 0, 'memory': 0}
    assert a._replace(**arrays) == b._replace(**arrays)
    np.testing.assert_array_equal(a.coefficients, b.coefficients)
    np.testing.assert_array_equal(a.scores, b.scores)


@pytest.fixture
def whole(tmp_path):
    """An uninterrupted search of each method: its last state and its files."""

    def run(method):
        folder = epath.Path(tmp_path / f'whole_{method}')
        folder.mkdir()
        state = generations.run(start(method), fitness, BUDGET, folder, 'search')
        return state, files(folder)

    return run


@pytest.mark.parametrize('method', ['evolution', 'cma_es', 'random'])
def test_a_killed_search_ends_as_if_it_had_not_been(method, whole, tmp_path):
    expected, expected_files = whole(method)
    assert len(expected.scores) == 10 + 5 * 5 and not np.isfinite(expected.scores).all()
    folder = epath.Path(tmp_path)
    for calls in (0, 2, 1):
        with pytest.raises(Killed):
            generations.run(start(method), killed_after(calls), BUDGET, folder, 'search')
    found = generations.run(start(method), fitness, BUDGET, folder, 'search')
    same(found, expected)
    assert files(folder) == expected_files


def test_rows_that_the_state_does_not_know_of_are_written_again(whole, tmp_path):
    """A kill between the rows of a generation and its state, and in the middle of a line."""
    expected, expected_files = whole('evolution')
    folder = epath.Path(tmp_path)
    with pytest.raises(Killed):
        generations.run(start(), killed_after(3), BUDGET, folder, 'search')
    rows = folder / 'search.jsonl'
    lines = expected_files['search.jsonl'].splitlines(keepends=True)
    assert rows.read_text() == ''.join(lines[:20])
    rows.write_text(''.join(lines[:23]) + lines[23][:30])
    same(generations.run(start(), fitness, BUDGET, folder, 'search'), expected)
    assert files(folder) == expected_files


def test_a_finished_search_is_not_searched_again(whole, tmp_path):
    folder = epath.Path(tmp_path)
    first = generations.run(start(), fitness, BUDGET, folder, 'search')
    same(generations.run(start(), killed_after(0), BUDGET, folder, 'search'), first)


def test_no_generation_after_the_profiles_scores_these_alone(tmp_path):
    budget = dataclasses.replace(BUDGET, generations=0)
    state = generations.run(start(), fitness, budget, epath.Path(tmp_path), 'search')
    assert len(state.scores) == 10 and state.generation == 1


def test_rows_of_candidates_say_which_profile_they_are(whole, tmp_path):
    """Also the rows that earlier versions wrote, which did not."""
    state, _ = whole('evolution')
    folder = epath.Path(tmp_path / 'whole_evolution')
    rows = generations.read_candidates(folder, 'search')
    profiles = [row['profile'] for row in rows]
    assert profiles[:10] == ask_tell.profile_identities(state) and set(profiles[10:]) == {None}
    earlier = [{k: v for k, v in row.items() if k != 'profile'} for row in rows]
    text = ''.join(json.dumps(row) + '\n' for row in earlier)
    (folder / 'search.jsonl').write_text(text)
    assert generations.read_candidates(folder, 'search') == rows
