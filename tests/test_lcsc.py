"""LCSC: the search on functions with known answers, and its fitness on a real network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax import data, samplers, scores, sharding
from cm_jax.core import precond, tree
from cm_jax.core import process as processes
from cm_jax.core.ema import coefficients as ema_coefficients
from cm_jax.errors import UserError
from cm_jax.lcsc import combine, search
from cm_jax.lcsc.fitness import make_fitness
from cm_jax.models import build, lenet

K = 20
OPTIMUM = np.random.default_rng(0).normal(0, 0.3, K)
OPTIMUM[0] += 1 - OPTIMUM.sum()  # sums to 1, with negative entries


def quadratic(a: np.ndarray) -> np.ndarray:
    return np.sum((a - OPTIMUM) ** 2, axis=-1)


def run(function, generations: int, seed: int, **settings) -> search.SearchState:
    state = search.init(jax.random.key(seed), K, **settings)
    for _ in range(generations):
        candidates, state = search.ask(state)
        state = search.tell(state, candidates, function(candidates))
    return state


def random_search(function, budget: int, seed: int) -> float:
    """The best of `budget` Gaussian steps away from the uniform average, summing to 1."""
    random = np.random.default_rng(seed)
    steps = random.normal(0, 0.3, (budget, K))
    return float(np.nanmin(function(1 / K + steps - steps.mean(1, keepdims=True))))


@pytest.mark.parametrize('seed', range(3))
def test_search_comes_near_a_shifted_optimum_and_beats_random_search(seed):
    state = run(quadratic, 200, seed)
    start = quadratic(np.stack(list(search.named_profiles(K, (0.9,)).values()))).min()
    assert state.best_score < 0.01 * start
    assert state.best_score < random_search(quadratic, len(state.scores), seed)
    assert (state.best_coefficients < 0).any()


@pytest.mark.parametrize('seed', range(3))
def test_search_on_a_noisy_function_and_one_with_holes(seed):
    random = np.random.default_rng(seed)

    def noisy(a: np.ndarray) -> np.ndarray:
        return quadratic(a) + random.normal(0, 0.02, len(a))

    def holes(a: np.ndarray) -> np.ndarray:
        return np.where(np.sin(40 * a[:, 3]) > 0.5, np.nan, quadratic(a))

    state = run(noisy, 100, seed)
    assert quadratic(state.best_coefficients) < random_search(quadratic, len(state.scores), seed)
    state = run(holes, 100, seed)
    assert np.isnan(state.scores).any() and np.isfinite(state.best_score)
    assert state.best_score < random_search(holes, len(state.scores), seed)


def test_candidates_sum_to_one_and_begin_with_the_profiles():
    state = search.init(jax.random.key(0), K, population=7)
    first, state = search.ask(state)
    np.testing.assert_array_equal(first[0], np.eye(K)[-1])
    np.testing.assert_allclose(first[-1], 1 / K)
    np.testing.assert_array_equal(first[1], ema_coefficients(K, state.settings.ema_rates[0]))
    state = search.tell(state, first, quadratic(first))
    children, _ = search.ask(state)
    assert children.shape == (7, K)
    np.testing.assert_allclose(children.sum(1), 1, atol=1e-12)


def test_ask_is_pure_and_depends_on_the_key():
    state = run(quadratic, 3, seed=0)
    again = run(quadratic, 3, seed=0)
    np.testing.assert_array_equal(state.coefficients, again.coefficients)
    np.testing.assert_array_equal(search.ask(state)[0], search.ask(state)[0])
    assert not np.array_equal(search.ask(run(quadratic, 3, seed=1))[0], search.ask(state)[0])


@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_is_never_best(bad):
    state = search.init(jax.random.key(0), K)
    candidates, state = search.ask(state)
    scores_ = np.full(len(candidates), bad)
    with pytest.raises(ValueError, match='no candidate has a finite score'):
        _ = search.tell(state, candidates, scores_).best
    scores_[4] = 3.0
    state = search.tell(state, candidates, scores_)
    assert state.best_score == 3.0
    np.testing.assert_array_equal(state.best_coefficients, candidates[4])


@pytest.mark.parametrize(
    ('settings', 'words'),
    [({'population': 0}, 'population'), ({'parents': 1}, 'parents'), ({'blend': 2.0}, 'blend')],
)
def test_wrong_settings_are_refused(settings, words):
    with pytest.raises(UserError, match=words):
        search.init(jax.random.key(0), K, **settings)
    with pytest.raises(UserError, match='at least 2 checkpoints'):
        search.init(jax.random.key(0), 1)


def test_the_window_keeps_the_last_snapshot_and_needs_two():
    steps = [0, 10, 20, 30, 40]
    assert combine.window(steps, 0, None, 1) == steps
    assert combine.window(steps, 5, 35, 1) == [10, 20, 30]
    assert combine.window(steps, 0, None, 3) == [10, 40]
    with pytest.raises(UserError, match='holds 1 of the 5 snapshots'):
        combine.window(steps, 40, None, 1)
    with pytest.raises(UserError, match='holds 0 of the 5 snapshots'):
        combine.window(steps, 50, None, 1)


@pytest.fixture(scope='module')
def parts():
    """A subject with four random networks stacked, and a reference."""
    process = processes.variance_exploding()
    settings = {'name': 'song_unet', 'channels': 4, 'channel_mult': (1,), 'num_blocks': 1}
    model = build(settings, (8, 8, 1), 10)
    denoise = precond.precondition(model.net, lambda t: precond.edm_scalings(t, 0.5))
    subject = scores.Subject(denoise, process, (8, 8, 1), 10)
    networks = [jax.tree.map(np.asarray, model.init(jax.random.key(i))) for i in range(4)]
    extractor = lenet.extractor('lenet_digits')
    reference = scores.reference(data.open_source('digits', 'train'), extractor, 500)
    return subject, tree.stack(networks), networks, extractor, reference


def fitness_of(parts, devices_mesh, samples=40, spec='multistep@80,1'):
    subject, stacked, _, extractor, reference = parts
    sampler = samplers.build(spec, subject.process)
    return make_fitness(
        subject,
        sampler,
        extractor,
        reference,
        stacked,
        samples=samples,
        batch_size=20,
        mesh=devices_mesh,
    )


def test_fitness_of_a_one_hot_candidate_is_the_score_of_that_network(parts):
    spec = 'multistep@80,1+cfg3'
    subject, _, networks, extractor, reference = parts
    mesh = sharding.make_mesh()
    found = fitness_of(parts, mesh, spec=spec)(np.eye(4), 3)
    scorer = scores.Scorer(subject, extractor, reference, 20, mesh)
    for network, fitness in zip(networks, found):
        row = scorer.score(network, spec, 40, (3,), ema='', step=0)
        np.testing.assert_allclose(fitness, row['fd_lenet'], rtol=1e-4)
        assert row['protocol']['sampler'] == spec and row['protocol']['evaluations'] == 4


def test_levels_share_a_program_and_each_has_its_own_score(parts):
    subject, _, _, extractor, reference = parts
    traced = []

    def denoise(params, x, t, label):
        traced.append(1)
        return params * jnp.tanh(x) / (1 + t[:, None, None, None])

    counted = subject._replace(denoise=denoise)
    scorer = scores.Scorer(counted, extractor, reference, 20, sharding.make_mesh())
    found, traces = [], []
    for level in (1, 5, 1):
        row = scorer.score(0.9, f'multistep@80,{level}', 40, (3,), ema='', step=0)
        found.append(row['fd_lenet'])
        traces.append(len(traced))
        assert row['protocol']['levels'] == [80, level]
    assert traces[0] == traces[1] == traces[2]
    assert found[0] == found[2] != found[1]


def test_fitness_depends_on_the_seed_and_a_broken_candidate_scores_nan(parts):
    fitness = fitness_of(parts, sharding.make_mesh())
    population = np.array([[1.0, 0, 0, 0], [np.nan, 0, 0, 1], [0.5, 0.5, -1, 1]])
    first, again, other = fitness(population, 0), fitness(population, 0), fitness(population, 1)
    np.testing.assert_array_equal(first, again)
    assert np.isnan(first[1]) and np.isfinite(first[[0, 2]]).all()
    assert (first[[0, 2]] != other[[0, 2]]).all()


def test_combined_weights_are_the_linear_combination(parts):
    _, stacked, networks, _, _ = parts
    a = np.array([0.5, -6.0, 6.0, 0.5])
    combined = combine.combine(stacked, a)
    expected = jax.tree.map(
        lambda *leaves: sum(c * leaf.astype(np.float64) for c, leaf in zip(a, leaves)), *networks
    )
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6 * max(1, np.abs(y).max())),
        combined,
        expected,
    )
    assert jax.tree.all(jax.tree.map(lambda x: x.dtype == jnp.float32, combined))
