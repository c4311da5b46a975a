"""The search on functions with known answers, by each method, and its state."""

import json

import jax
import numpy as np
import pytest

from cm_jax.core.ema import coefficients as ema_coefficients
from cm_jax.errors import UserError
from cm_jax.lcsc import ask_tell, profiles
from cm_jax.lcsc.profiles import starting_profiles

K = 20
SEEDS = range(3)
BETTER = ('evolution', 'cma_es')
POPULATIONS = (*BETTER, 'random')  # the method 'gradient' has tests/lcsc/test_gradient.py
OPTIMUM = np.random.default_rng(0).normal(0, 0.3, K)
OPTIMUM[0] += 1 - OPTIMUM.sum()  # sums to 1, with negative entries
START = min(np.sum((p.coefficients - OPTIMUM) ** 2) for p in starting_profiles(K, (0.9,)))


def quadratic(a: np.ndarray) -> np.ndarray:
    return np.sum((a - OPTIMUM) ** 2, axis=-1)


def holes(a: np.ndarray) -> np.ndarray:
    return np.where(np.sin(40 * a[:, 3]) > 0.5, np.nan, quadratic(a))


def make_noisy(seed: int):
    random = np.random.default_rng(seed)
    return lambda a: quadratic(a) + random.normal(0, 0.02, len(a))


def go_on(state: ask_tell.SearchState, function, generations: int) -> ask_tell.SearchState:
    for _ in range(generations):
        candidates, state = ask_tell.ask(state)
        state = ask_tell.tell(state, candidates, function(candidates))
    return state


def run(function, generations: int, seed: int, **settings) -> ask_tell.SearchState:
    return go_on(ask_tell.init(jax.random.key(seed), K, **settings), function, generations)


@pytest.fixture(scope='module')
def random_runs():
    """Random search with the budget of the others, by function and seed."""
    return {
        (name, seed): run(function, generations, seed, method='random')
        for name, function, generations in (
            ('quadratic', quadratic, 150),
            ('noisy', make_noisy(0), 100),
            ('holes', holes, 100),
        )
        for seed in SEEDS
    }


@pytest.mark.parametrize('seed', SEEDS)
@pytest.mark.parametrize('method', BETTER)
def test_search_comes_within_a_percent_of_a_shifted_optimum(method, seed, random_runs):
    """2,395 evaluations; the optimum has negative entries."""
    state, other = run(quadratic, 150, seed, method=method), random_runs['quadratic', seed]
    assert len(state.scores) == len(other.scores) == 10 + 149 * 16
    assert state.best_score < 0.01 * START
    assert state.best_score < 0.1 * other.best_score
    assert np.linalg.norm(state.best_coefficients - OPTIMUM) < 0.1 * np.sqrt(START)
    assert (state.best_coefficients < 0).any()


@pytest.mark.parametrize('seed', SEEDS)
@pytest.mark.parametrize('method', BETTER)
def test_search_of_a_noisy_function_and_of_one_with_holes(method, seed, random_runs):
    state, other = run(make_noisy(seed), 100, seed, method=method), random_runs['noisy', seed]
    assert quadratic(state.best_coefficients) < 0.02 * START
    assert quadratic(state.best_coefficients) < quadratic(other.best_coefficients)
    state, other = run(holes, 100, seed, method=method), random_runs['holes', seed]
    assert np.isnan(state.scores).any()
    assert state.best_score == holes(state.best_coefficients[None])[0] < 0.02 * START
    assert state.best_score < other.best_score


@pytest.mark.parametrize('groups', [1, 3])
@pytest.mark.parametrize('method', POPULATIONS)
def test_candidates_of_each_group_sum_to_one_and_begin_with_the_profiles(method, groups):
    state = ask_tell.init(jax.random.key(0), K, method=method, groups=groups, population=7)
    first, state = ask_tell.ask(state)
    np.testing.assert_array_equal(first[0], np.tile(np.eye(K)[-1], groups))
    np.testing.assert_array_equal(first[1, -K:], ema_coefficients(K, state.settings.ema_rates[0]))
    np.testing.assert_array_equal(first[-1], 1 / K)
    state = ask_tell.tell(state, first, np.arange(len(first)))
    children, _ = ask_tell.ask(state)
    assert children.shape == (7, groups * K)
    assert len(np.unique(children, axis=0)) == 7
    np.testing.assert_allclose(children.reshape(7, groups, K).sum(2), 1, atol=1e-12)


@pytest.mark.parametrize('method', BETTER)
def test_groups_find_an_optimum_each(method):
    optima = np.concatenate([ema_coefficients(6, 0.5), ema_coefficients(6, 0.9)[::-1]])
    state = ask_tell.init(jax.random.key(0), 6, method=method, groups=2, scale=0.03)
    function = lambda a: np.sum((a - optima) ** 2, axis=1)  # noqa: E731
    first = go_on(state, function, 1)
    assert go_on(state, function, 80).best_score < 0.02 * first.best_score


@pytest.mark.parametrize('method', POPULATIONS)
def test_ask_is_pure_and_depends_on_the_key(method):
    state = run(quadratic, 3, seed=0, method=method)
    again = run(quadratic, 3, seed=0, method=method)
    asked, _ = ask_tell.ask(state)
    np.testing.assert_array_equal(state.coefficients, again.coefficients)
    np.testing.assert_array_equal(asked, ask_tell.ask(state)[0])
    ask_tell.tell(state, asked, quadratic(asked))
    np.testing.assert_array_equal(asked, ask_tell.ask(state)[0])
    other = run(quadratic, 3, seed=1, method=method)
    assert not np.array_equal(ask_tell.ask(other)[0], asked)


@pytest.mark.parametrize('groups', [1, 2])
@pytest.mark.parametrize('method', POPULATIONS)
def test_a_search_saved_at_any_moment_goes_on_as_if_it_had_not_been(method, groups):
    def function(a: np.ndarray) -> np.ndarray:
        return np.where(a[:, 1] > 0.1, [np.nan, np.inf][len(a) % 2], np.sum(a**2, axis=1))

    def saved(state: ask_tell.SearchState) -> ask_tell.SearchState:
        return ask_tell.from_plain(
            json.loads(json.dumps(ask_tell.to_plain(state), allow_nan=False))
        )

    state = ask_tell.init(jax.random.key(3), 8, method=method, groups=groups, population=5)
    whole = go_on(state, function, 12)
    assert not np.isfinite(whole.scores).all()
    for _ in range(12):
        candidates, state = ask_tell.ask(saved(state))
        state = ask_tell.tell(saved(state), candidates, function(candidates))
    np.testing.assert_array_equal(state.coefficients, whole.coefficients)
    np.testing.assert_array_equal(state.scores, whole.scores)
    assert state[:6] == whole[:6] and state.told == whole.told
    np.testing.assert_array_equal(ask_tell.ask(saved(state))[0], ask_tell.ask(whole)[0])


@pytest.mark.parametrize('method', POPULATIONS)
@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_is_never_best(method, bad):
    state = ask_tell.init(jax.random.key(0), K, method=method)
    candidates, state = ask_tell.ask(state)
    scores = np.full(len(candidates), bad)
    broken = ask_tell.tell(state, candidates, scores)
    with pytest.raises(ValueError, match='no candidate has a finite score'):
        _ = broken.best
    assert np.isfinite(ask_tell.ask(broken)[0]).all()
    scores[4] = 3.0
    state = ask_tell.tell(state, candidates, scores)
    assert state.best_score == 3.0
    np.testing.assert_array_equal(state.best_coefficients, candidates[4])
    candidates, state = ask_tell.ask(state)
    state = ask_tell.tell(state, candidates, np.full(len(candidates), bad))
    assert state.best_score == 3.0 and np.isfinite(ask_tell.ask(state)[0]).all()


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        ({'method': 'annealing'}, 'cma_es, evolution, gradient, random'),
        ({'method': 'cma_es', 'population': 3}, r'population must be .*\[4, 65536\], got 3'),
        ({'method': 'cma_es', 'mutation': 0.2}, 'mutation.*legal: ema_rates, population, scale'),
        ({'groups': 0}, 'at least 1 group'),
    ],
)
def test_wrong_settings_are_refused(settings, words):
    with pytest.raises(UserError, match=words):
        ask_tell.init(jax.random.key(0), K, **settings)


def test_what_is_out_of_turn_is_refused():
    with pytest.raises(UserError, match='at least 2 checkpoints'):
        ask_tell.init(jax.random.key(0), 1)
    candidates, state = ask_tell.ask(ask_tell.init(jax.random.key(0), K, method='cma_es'))
    with pytest.raises(ValueError, match='have not been told'):
        ask_tell.ask(state)
    with pytest.raises(ValueError, match='scores for coefficients of shape'):
        ask_tell.tell(state, candidates, np.zeros(3))
    state = ask_tell.tell(state, candidates, quadratic(candidates))
    with pytest.raises(ValueError, match='10 scores for CMA-ES with a population of 16'):
        ask_tell.tell(state, candidates, quadratic(candidates))


def test_the_plane_is_orthonormal_and_at_a_right_angle_to_the_uniform_average():
    basis = profiles.plane(K)
    np.testing.assert_allclose(basis @ basis.T, np.eye(K - 1), atol=1e-14)
    np.testing.assert_allclose(basis.sum(1), 0, atol=1e-13)


def test_random_search_looks_at_no_score():
    first = run(quadratic, 4, 0, method='random')
    other = run(lambda a: -quadratic(a), 4, 0, method='random')
    np.testing.assert_array_equal(first.coefficients, other.coefficients)


def test_cma_es_begins_again_at_the_best_when_it_has_come_to_its_end():
    flat = lambda a: np.where(a[:, -1] == 1, 0.0, 1.0)  # noqa: E731  the best is a profile
    state, generations = run(flat, 2, 0, method='cma_es'), []
    while not generations or state.memory.generation > generations[-1]:
        generations.append(state.memory.generation)
        state = go_on(state, flat, 1)
        assert len(generations) < 200
    assert generations[-1] > 20 and state.memory.generation == 0
    np.testing.assert_allclose(1 / K + state.memory.mean @ profiles.plane(K), np.eye(K)[-1])
