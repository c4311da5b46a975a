"""The descent on functions with known answers, its state, and who stands for election."""

import json

import jax
import numpy as np
import pytest

from cm_jax.errors import UserError
from cm_jax.lcsc import ask_tell
from cm_jax.lcsc.ask_tell import SearchState, from_plain, to_plain

K = 12
OPTIMUM = np.random.default_rng(0).normal(0, 0.1, 2 * K).reshape(2, K)
OPTIMUM += (1 - OPTIMUM.sum(1, keepdims=True)) / K


def quadratic(candidates):
    """A bowl in the plane and a slope across it, which no step may follow; with its derivative."""
    c = candidates.reshape(len(candidates), -1, K)
    off = c - OPTIMUM[: c.shape[1]]
    values = np.sum(off**2, axis=(1, 2)) + 5 * c.sum(axis=(1, 2))
    return values, (2 * off + 5).reshape(candidates.shape)


def start(steps=200, groups=1, **settings) -> SearchState:
    key = jax.random.key(0)
    return ask_tell.init(key, K, method='gradient', groups=groups, steps=steps, **settings)


def go_on(state, generations, function=quadratic):
    for _ in range(generations):
        candidates, state = ask_tell.ask(state)
        scores, gradients = function(candidates)
        told = gradients if state.wants_gradients else None
        state = ask_tell.tell(state, candidates, scores, told)
    return state


@pytest.mark.parametrize('groups', [1, 2])
def test_it_begins_at_the_best_profile_and_comes_to_the_optimum_of_the_plane(groups):
    state = go_on(start(groups=groups), 201)
    profiles, iterates = state.coefficients[:10], state.coefficients[10:]
    best = profiles[np.argmin(quadratic(profiles)[0])]
    np.testing.assert_allclose(iterates[0], best, atol=1e-15)
    assert iterates.shape == (200, groups * K)
    np.testing.assert_allclose(iterates.reshape(200, groups, K).sum(2), 1, atol=1e-12)
    distance = np.linalg.norm(iterates[-1] - OPTIMUM[:groups].ravel())
    assert distance < 0.02 * np.linalg.norm(iterates[0] - OPTIMUM[:groups].ravel())


def test_the_steps_fall_to_nothing_and_are_shorter_for_more_snapshots():
    state = go_on(start(steps=50, learning_rate=0.6), 51)
    steps = np.abs(np.diff(state.coefficients[10:], axis=0)).max(axis=1)
    assert steps[0] <= 2 * 0.6 / K and steps[-1] < 0.01 * steps[0]
    other = ask_tell.init(jax.random.key(0), 4 * K, method='gradient', learning_rate=0.6, steps=50)
    flat = lambda c: (c[:, 0], np.sign(np.arange(c.shape[1]) % 2 - 0.5)[None])  # noqa: E731
    found = go_on(other, 3, lambda c: (np.zeros(len(c)), flat(c)[1].repeat(len(c), 0)))
    step = np.abs(np.diff(found.coefficients[-2:], axis=0))
    np.testing.assert_allclose(step, 0.6 / (4 * K), rtol=1e-5)


def test_a_search_saved_at_any_moment_goes_on_as_if_it_had_not_been():
    def broken(candidates):
        scores, gradients = quadratic(candidates)
        return np.where(candidates[:, 0] > 0.11, np.nan, scores), gradients

    def saved(state):
        return from_plain(json.loads(json.dumps(to_plain(state), allow_nan=False)))

    whole, state = go_on(start(20, 2), 21, broken), start(20, 2)
    for _ in range(21):
        state = go_on(saved(state), 1, broken)
    np.testing.assert_array_equal(state.coefficients, whole.coefficients)
    np.testing.assert_array_equal(state.gradients, whole.gradients)
    np.testing.assert_array_equal(ask_tell.ask(saved(state))[0], ask_tell.ask(whole)[0])


@pytest.mark.parametrize('bad', ['score', 'gradient'])
def test_a_step_that_is_not_finite_changes_nothing(bad):
    def broken(candidates):
        scores, gradients = quadratic(candidates)
        if len(candidates) == 1:
            (scores if bad == 'score' else gradients)[..., -1] = np.nan
        return scores, gradients

    state = go_on(start(), 4, broken)
    np.testing.assert_array_equal(state.coefficients[10], state.coefficients[-1])
    following = go_on(state, 2)
    assert not np.array_equal(following.coefficients[-1], state.coefficients[-1])


def test_means_of_the_last_iterates_stand_for_election_and_others_of_the_second_half():
    state = go_on(start(steps=40), 41)
    candidates, scores = ask_tell.finalists(state, 6)
    iterates = state.coefficients[10:]
    np.testing.assert_allclose(candidates[0], iterates[-10:].mean(0), atol=1e-15)
    np.testing.assert_allclose(candidates[1], iterates[-20:].mean(0), atol=1e-15)
    np.testing.assert_array_equal(candidates[2:], iterates[[39, 32, 26, 20]])
    assert np.isnan(scores[:2]).all()
    np.testing.assert_array_equal(scores[2:], state.scores[10:][[39, 32, 26, 20]])
    few, _ = ask_tell.finalists(state, 1)
    np.testing.assert_array_equal(few, candidates[:1])
    none, _ = ask_tell.finalists(go_on(start(), 1), 6)
    assert none.shape == (0, K)


def test_what_is_wrong_is_refused():
    for settings, words in (
        ({'learning_rate': np.nan}, 'learning_rate must be a number .* got nan'),
        ({'population': 3}, 'legal: b1, b2, ema_rates, learning_rate, steps'),
    ):
        with pytest.raises(UserError, match=words):
            start(**settings)
    candidates, state = ask_tell.ask(go_on(start(), 1))
    with pytest.raises(ValueError, match='without its derivative'):
        ask_tell.tell(state, candidates, np.zeros(1))
    with pytest.raises(ValueError, match='gradients'):
        ask_tell.tell(state, candidates, np.zeros(1), np.zeros((1, 3)))
