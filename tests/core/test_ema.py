"""Power-function averages: gamma, profiles, coefficients, and averages made post hoc."""

import itertools
import json
import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax import checkpoint, run_folder
from cm_jax import config as configs
from cm_jax.core import ema, tree
from cm_jax.errors import UserError
from cm_jax.run import MAX_ERROR, open_run
from cm_jax.run_folder import DATA_CARD, TRAJECTORY
from tests.helpers import commands, tiny

KEPT = (0.05, 0.1)
STEPS = 240


def profile(t, gamma, times):
    """(gamma + 1) tau^gamma / t^(gamma + 1) up to t, 0 after it."""
    return np.where(times <= t, (gamma + 1) / t * (times / t) ** gamma, 0)


def snapshots(every, last=STEPS):
    """(steps, sigma_rels) of the averages that a trajectory stores."""
    return zip(*itertools.product(range(every, last + 1, every), KEPT))


# The profile


@pytest.mark.parametrize('sigma_rel', [0.01, 0.05, 0.1, 0.2, 0.28])
def test_gamma_gives_the_profile_its_width(sigma_rel):
    gamma = ema.sigma_rel_to_gamma(sigma_rel)
    times = (np.arange(400_000) + 0.5) / 400_000
    density = profile(1.0, gamma, times)
    mean = np.mean(density * times)
    deviation = np.sqrt(np.mean(density * (times - mean) ** 2))
    np.testing.assert_allclose([np.mean(density), deviation], [1, sigma_rel], rtol=1e-6)


def test_gamma_of_the_papers_examples():
    """EDM2, section 3.1: 0.05 and 0.10 are gamma 16.97 and 6.94."""
    np.testing.assert_allclose([ema.sigma_rel_to_gamma(s) for s in KEPT], [16.97, 6.94], atol=5e-3)


@pytest.mark.parametrize('sigma_rel', [0.0, -0.1, 0.29, 1.0, np.nan])
def test_widths_that_no_profile_has_are_refused(sigma_rel):
    with pytest.raises(UserError, match=r'sigma_rel must lie in \(0, 0\.2887\), got'):
        ema.sigma_rel_to_gamma(sigma_rel)


@pytest.mark.parametrize('sigma_rel', KEPT)
def test_share_keeps_its_precision_at_large_steps_and_is_one_at_the_first(sigma_rel):
    share, exponent = jax.jit(ema.power_share(sigma_rel)), ema.sigma_rel_to_gamma(sigma_rel) + 1
    assert share(jnp.int32(1)) == 1
    for t in (2, 100, 10**5, 10**7):
        expected = -np.expm1(exponent * np.log1p(-1 / t))
        np.testing.assert_allclose(share(jnp.int32(t)), expected, rtol=1e-6)


@pytest.mark.parametrize('sigma_rel', [0.02, 0.1, 0.25])
def test_coefficients_are_the_recursion(sigma_rel):
    share = ema.power_share(sigma_rel)
    rows = np.zeros(30)
    for t in range(1, 31):
        rows *= 1 - float(share(t))
        rows[t - 1] += float(share(t))
    found = ema.power_coefficients(range(1, 31), sigma_rel)
    np.testing.assert_allclose(found, rows, atol=2e-7)
    np.testing.assert_allclose(found.sum(), 1, rtol=1e-12)


def test_coefficients_of_some_checkpoints_are_sums_over_the_steps_between():
    every = ema.power_coefficients(range(1, 41), 0.1)
    some = ema.power_coefficients([0, 10, 20, 25, 40], 0.1)
    np.testing.assert_allclose(some[0], 0)
    sums = [every[a:b].sum() for a, b in ((0, 10), (10, 20), (20, 25), (25, 40))]
    np.testing.assert_allclose(some[1:], sums, rtol=1e-12)
    np.testing.assert_array_equal(ema.power_coefficients([7], 0.1), [1])


def test_averages_by_name_and_their_ranges():
    found = ema.averages([0.999, 0.5], [0.10, 0.05])
    assert list(found) == ['0.999', '0.5', 'power0.1', 'power0.05']
    assert found['0.5'](3) == 0.5
    with pytest.raises(UserError, match=r'config\.ema_rates must lie in \[0, 1\), got \(1\.0,\)'):
        ema.averages([1.0])
    with pytest.raises(UserError, match=r'config\.ema_sigma_rels must lie in \(0, 0\.2887\)'):
        ema.averages([], [0.05, 0.3])


# Post hoc


def test_inner_products_are_the_integrals():
    times = (np.arange(200_000) + 0.5) / 200_000
    for ta, a, tb, b in ((1.0, 6.94, 1.0, 16.97), (0.4, 6.94, 1.0, 3.0), (0.9, 16.97, 0.3, 6.94)):
        integral = np.mean(profile(ta, a, times) * profile(tb, b, times))
        np.testing.assert_allclose(ema._inner(ta, a, tb, b), integral, rtol=2e-4)


def test_a_stored_average_is_itself():
    steps, sigma_rels = snapshots(20)
    for i in (0, 7, len(steps) - 1):
        upto = [k for k in range(len(steps)) if steps[k] <= steps[i]]
        stored = [steps[k] for k in upto], [sigma_rels[k] for k in upto]
        found = ema.posthoc(*stored, steps[i], sigma_rels[i])
        np.testing.assert_allclose(found.coefficients, np.eye(len(steps))[i, upto], atol=1e-9)
        assert found.error < 1e-6


@pytest.mark.parametrize('sigma_rel', [0.02, 0.03, 0.07, 0.12, 0.2])
def test_posthoc_is_the_least_squares_fit_of_the_profile(sigma_rel):
    """Against numpy's least squares on finely sampled profiles, with the sum to 1 put in."""
    steps, sigma_rels = map(np.array, snapshots(30))
    found = ema.posthoc(steps, sigma_rels, STEPS, sigma_rel)
    times = (np.arange(20_000) + 0.5) / 20_000 * STEPS
    basis = np.array(
        [profile(t, ema.sigma_rel_to_gamma(s), times) for t, s in zip(steps, sigma_rels)]
    )
    target = profile(STEPS, ema.sigma_rel_to_gamma(sigma_rel), times)
    rest = (basis[:-1] - basis[-1]).T  # c_N = 1 - the others
    others = np.linalg.lstsq(rest, target - basis[-1], rcond=None)[0]
    expected = np.append(others, 1 - others.sum())
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found.coefficients, expected, atol=0.02 * scale)
    np.testing.assert_allclose(found.coefficients.sum(), 1, rtol=1e-9)
    error = np.linalg.norm(found.coefficients @ basis - target) / np.linalg.norm(target)
    np.testing.assert_allclose(found.error, error, rtol=0.02)


def walk(seed=0, size=64):
    """theta_1 .. theta_STEPS, [STEPS, size]: a random walk from far off 0."""
    return 5 + np.cumsum(np.random.default_rng(seed).standard_normal((STEPS, size)), axis=0)


def averaged(weights, sigma_rel):
    """The running average at every step, by its recursion."""
    share, average, rows = ema.power_share(sigma_rel), np.zeros(weights.shape[1]), []
    for t, row in enumerate(weights, 1):
        average = average + float(share(t)) * (row - average)
        rows.append(average)
    return np.array(rows)


@pytest.mark.parametrize(
    'step, sigma_rel, bound',
    [
        (240, 0.03, 0.02),
        (240, 0.07, 0.002),
        (240, 0.15, 0.005),
        (160, 0.07, 0.003),
        (240, 0.2, 0.01),
    ],
)
def test_posthoc_average_of_a_random_walk_is_the_running_one(step, sigma_rel, bound):
    """In units of the distance that the weights went in the width of the average."""
    weights = walk()
    kept = {s: averaged(weights, s) for s in KEPT}
    steps, sigma_rels = snapshots(10, step)
    found = ema.posthoc(steps, sigma_rels, step, sigma_rel)
    made = sum(c * kept[s][t - 1] for c, t, s in zip(found.coefficients, steps, sigma_rels))
    expected = averaged(weights, sigma_rel)[step - 1]
    moved = np.sqrt(sigma_rel * step)
    assert np.sqrt(np.mean((made - expected) ** 2)) < bound * moved
    assert np.sqrt(np.mean((kept[0.1][step - 1] - expected) ** 2)) > 0.05 * moved  # not trivial


def test_more_snapshots_and_nearer_widths_fit_better():
    by_count = [ema.posthoc(*snapshots(every), STEPS, 0.03).error for every in (60, 30, 10, 5)]
    by_width = [ema.posthoc(*snapshots(10), STEPS, s).error for s in (0.01, 0.02, 0.03, 0.045)]
    assert by_count == sorted(by_count, reverse=True)
    assert by_width == sorted(by_width, reverse=True)
    assert by_width[0] > MAX_ERROR > by_width[2]


def test_weights_that_never_changed_stay_as_they_are():
    for sigma_rel in (0.015, 0.07, 0.25):
        steps, sigma_rels = snapshots(60)
        coefficients = ema.posthoc(steps, sigma_rels, STEPS, sigma_rel).coefficients
        constant = {'fixed_freqs': np.float32([3.0, -50.0])}
        found = tree.weighted_sum(coefficients, itertools.repeat(constant, len(steps)))
        chex.assert_trees_all_close(found, constant, rtol=1e-5)


def test_weighted_sum_takes_one_tree_at_a_time_and_stays_in_float32():
    alive = []

    def trees():
        for i in range(4):
            alive.append(i)
            yield {'a': np.float32([i, 2 * i]), 'b': {'c': np.float32(i)}}

    found = tree.weighted_sum([1, -2, 3, 0.5], trees())
    chex.assert_trees_all_equal(found, {'a': np.float32([5.5, 11]), 'b': {'c': np.float32(5.5)}})
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(found))
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype('float32')}
    with pytest.raises(ValueError, match='of no trees'):
        tree.weighted_sum([], [])
    with pytest.raises(ValueError, match='shorter'):
        tree.weighted_sum([1, 2, 3, 4, 5], trees())


# In a run folder


def write_run(folder: pathlib.Path, steps, sigma_rels=KEPT) -> np.ndarray:
    """A run folder with a random walk for weights and its power averages; returns the walk."""
    weights = walk(size=6)
    run_folder.write_config(folder, configs.to_plain(tiny.get_config()))
    (folder / DATA_CARD).write_text(json.dumps({'image_shape': [8, 8, 1], 'num_classes': 10}))
    kept = {f'ema_power{s}': averaged(weights, s) for s in sigma_rels}
    with checkpoint.Stream(folder / TRAJECTORY) as stream:
        for step in steps:
            items = {'params': weights, 'ema_0.9': weights} | kept
            rows = {name: {'w': np.float32(rows[step - 1])} for name, rows in items.items()}
            stream.save(step, rows, {'step': step})
    return weights


@pytest.fixture(scope='module')
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp('ema') / 'run'
    return folder, write_run(folder, range(20, STEPS + 1, 20))


def test_a_run_makes_averages_that_it_has_not_stored(stored):
    folder, weights = stored
    run = open_run(folder)
    assert run.emas() == ['0.9', 'power0.05', 'power0.1']
    for step, sigma_rel in ((240, 0.07), (160, 0.12), (20, 0.05)):
        made = run.params(step, f'posthoc{sigma_rel}')
        assert set(made) == {'w'} and made['w'].dtype == np.float32
        expected = averaged(weights, sigma_rel)[step - 1]
        np.testing.assert_allclose(made['w'], expected, atol=0.02 * np.sqrt(sigma_rel * step))
    chex.assert_trees_all_close(
        run.params(240, 'posthoc0.1'), run.params(240, 'power0.1'), rtol=1e-6
    )


def test_a_posthoc_average_says_what_it_is_made_of(stored):
    parts = open_run(stored[0]).posthoc(100, 'posthoc0.07')
    made_of = itertools.product(range(20, 101, 20), ('power0.05', 'power0.1'))
    assert [(part.step, part.ema) for part in parts] == list(made_of)
    np.testing.assert_allclose(sum(part.coefficient for part in parts), 1)


@pytest.mark.parametrize(
    'ema, words',
    [
        ('posthoc', ['takes a number', "'posthoc'"]),
        ('posthocx', ['takes a number', "'posthocx'"]),
        ('posthoc0.3', ['(0, 0.2887)', 'got 0.3']),
        (
            'posthoc0.005',
            ['out of the range of the 24 averages', 'power0.05, power0.1', '20 to 240'],
        ),
        ('power0.07', ["'power0.07'", '0.9, power0.05, power0.1']),
    ],
)
def test_averages_that_cannot_be_made_are_refused(stored, ema, words):
    with pytest.raises(UserError) as raised:
        open_run(stored[0]).params(240, ema)
    assert all(word in str(raised.value) for word in words), raised.value


def test_a_run_without_power_averages_says_what_it_takes(tmp_path):
    write_run(tmp_path / 'run', [20, 40], sigma_rels=())
    with pytest.raises(UserError, match=r'ema_sigma_rels.*trajectory\.emas=True'):
        open_run(tmp_path / 'run').params(40, 'posthoc0.07')


@pytest.mark.slow
@pytest.mark.devices
def test_training_keeps_power_averages_and_the_commands_make_others(tmp_path):
    folder = f'--workdir={tmp_path}/run'
    kept = ['--config.ema_sigma_rels=(0.05, 0.1)', '--config.sampling.ema=power0.1']
    every = ['--config.trajectory.every=1', '--config.trajectory.emas=True']
    commands.run('train', '--config=tests/helpers/tiny.py:edm', folder, *kept, *every)
    run = open_run(tmp_path / 'run')
    assert run.emas(3) == ['0.5', '0.9', 'power0.05', 'power0.1']
    assert all(row['learning_rate'] > 0 for row in run.metrics())
    weights = [run.params(step) for step in range(1, 13)]
    for name, sigma_rel, tolerance in (('power0.1', 0.1, 1e-5), ('posthoc0.07', 0.07, 1e-2)):
        expected = tree.weighted_sum(ema.power_coefficients(range(1, 13), sigma_rel), weights)
        apart = tree.flatten(
            jax.tree.map(lambda a, b: np.abs(a - b).max(), run.params(12, name), expected)
        )
        moved = tree.flatten(
            jax.tree.map(lambda a, b: np.abs(a - b).max(), weights[0], weights[-1])
        )
        assert all(apart[path] <= tolerance * moved[path] + 1e-6 for path in apart)
    commands.run('sample', folder, '--ema=posthoc0.07', '--sampler=onestep')
    assert (tmp_path / 'run/samples/onestep_step12_emaposthoc0.07_seed0.png').exists()
    commands.run('evaluate', folder, '--ema=posthoc0.07', '--sampler=onestep')
    assert [row['protocol']['ema'] for row in run.scores()] == ['posthoc0.07']
    line = commands.error('evaluate', folder, '--ema=posthoc0.001')
    assert 'out of the range of the 24 averages' in line
