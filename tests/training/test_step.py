"""The train step: accumulation, non-finite steps, the loss by noise level."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax.core import tree
from cm_jax.training import optim
from cm_jax.training.step import QUARTERS, by_quarter, init_state, make_train_step
from tests.helpers.regression import (
    BATCH,
    loss,
    make_batch,
    make_params,
    objective,
    sgd,
    spoil,
    start,
)
from tests.helpers.two_networks import wired


def test_state_starts_at_the_initial_weights():
    state, _ = start()
    for other in (state.params, state.refs, *state.emas.values()):
        chex.assert_trees_all_equal(other, make_params())
    assert set(state.emas) == {'0.5', '0.9', 'power0.05', 'power0.1'}
    assert state.step == state.skipped == state.skipped_in_row == 0


def test_step_is_the_gradient_step_on_the_mean_loss():
    rate = 0.1
    state, step = start(optimizer=sgd(rate))
    batch = make_batch()
    mean = lambda params: jnp.mean(loss(params, (), (), batch, None, 0)[0])  # noqa: E731
    value, gradient = jax.value_and_grad(mean)(state.params)
    after, metrics = step(state, batch, ())
    chex.assert_trees_all_close(
        after.params, jax.tree.map(lambda p, g: p - rate * g, state.params, gradient), rtol=1e-6
    )
    norm = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(gradient)))
    np.testing.assert_allclose(metrics['loss'], value, rtol=1e-6)
    np.testing.assert_allclose(metrics['grad_norm'], norm, rtol=1e-6)
    np.testing.assert_allclose(metrics['twice'], 2 * value, rtol=1e-6)
    np.testing.assert_allclose(metrics['t'], (BATCH - 1) / 2, rtol=1e-6)
    chex.assert_shape(list(metrics.values()), ())


@pytest.mark.parametrize('accumulate', [2, 4, 12])
def test_accumulated_step_is_the_whole_step(accumulate):
    state, step = start(optimizer=sgd(0.1))
    _, in_parts = start(accumulate, optimizer=sgd(0.1))
    one, of_one = step(state, make_batch(), ())
    other, of_other = in_parts(state, make_batch(), ())
    chex.assert_trees_all_close(one, other, rtol=1e-5, atol=1e-7)
    for name in ('loss', 'grad_norm', 'param_norm', 'twice', 't'):
        np.testing.assert_allclose(of_one[name], of_other[name], rtol=1e-5)


def test_micro_batches_are_every_accumulate_th_example_with_their_own_key():
    """So that each stays spread over the devices."""

    def seen(params, refs, teacher, batch, key, step):
        drawn = jnp.full(3, jax.random.uniform(key))
        first = jnp.full(3, jnp.sum(batch['label'] * 16.0 ** jnp.arange(3)))
        gradient_only = 0 * jnp.sum(params['shift'])
        return first + gradient_only, {'t': first, 'drawn': drawn, 'squared': drawn**2}

    state, step = start(4, objective=objective(seen))
    batch = make_batch() | {'label': jnp.arange(BATCH)}
    _, metrics = step(state, batch, ())
    parts = [np.sum(np.arange(i, BATCH, 4) * 16.0 ** np.arange(3)) for i in range(4)]
    np.testing.assert_allclose(metrics['loss'], np.mean(parts))
    assert metrics['squared'] - metrics['drawn'] ** 2 > 1e-4  # the variance over micro-batches


def test_each_step_has_its_own_key_and_a_repeat_is_bit_for_bit():
    def drawn(params, refs, teacher, batch, key, step):
        value = jax.random.uniform(key, (BATCH,)) + 0 * jnp.sum(params['shift'])
        return value, {'t': value}

    state, step = start(objective=objective(drawn))
    after, first = step(state, make_batch(), ())
    _, second = step(after, make_batch(), ())
    assert first['loss'] != second['loss']
    chex.assert_trees_all_equal(step(state, make_batch(), ())[1], first)


# Non-finite steps


@pytest.mark.parametrize('accumulate', [1, 4])
@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_non_finite_step_changes_nothing_but_the_counters(accumulate, value):
    state, step = start(accumulate)
    state, _ = step(state, make_batch(), ())
    batch = make_batch(1)
    after, metrics = step(state, spoil(batch, 5, value), ())
    counters = {
        'step': state.step,
        'skipped': state.skipped,
        'skipped_in_row': state.skipped_in_row,
    }
    chex.assert_trees_all_equal(after._replace(**counters), state)
    assert after.step == state.step + 1
    assert after.skipped == after.skipped_in_row == metrics['skipped'] == 1
    assert metrics['skipped_in_row'] == 1
    assert metrics['t_bad'] == batch['label'][5]


def test_skipped_steps_in_a_row_are_counted_until_a_finite_one():
    state, step = start()
    counts = []
    for bad in (True, True, False, True, False):
        batch = spoil(make_batch(), 0, np.nan) if bad else make_batch()
        state, metrics = step(state, batch, ())
        counts.append((int(metrics['skipped']), int(metrics['skipped_in_row'])))
    assert counts == [(1, 1), (2, 2), (2, 0), (3, 1), (3, 0)]
    assert state.step == 5
    chex.assert_tree_all_finite(state)


def test_finite_step_has_no_bad_level():
    state, step = start()
    assert step(state, make_batch(), ())[1]['t_bad'] == 0


def test_finite_loss_with_a_non_finite_gradient_is_skipped():
    def root(params, refs, teacher, batch, key, step):
        value = jnp.sqrt(0 * jnp.sum(params['shift'])) + jnp.ones(BATCH)
        return value, {'t': value}

    state, step = start(objective=objective(root))
    after, metrics = step(state, make_batch(), ())
    assert np.isfinite(metrics['loss']) and not np.isfinite(metrics['grad_norm'])
    assert after.skipped == 1
    chex.assert_trees_all_equal(after.params, state.params)


# The loss by noise level


@pytest.mark.parametrize('batch', [4, 8, 64])
def test_quarters_average_to_the_mean_loss(batch):
    key_loss, key_t = jax.random.split(jax.random.key(0))
    found = jax.random.exponential(key_loss, (batch,))
    quarters = by_quarter(found, jax.random.exponential(key_t, (batch,)))
    assert len(quarters) == QUARTERS
    np.testing.assert_allclose(np.mean(list(quarters.values())), np.mean(found), rtol=1e-6)


def test_quarters_are_in_order_of_the_noise_level():
    t = jnp.asarray(np.random.default_rng(0).permutation(8), jnp.float32)
    quarters = by_quarter(10 * t, t)
    assert [quarters[f'loss_q{i}'] for i in (1, 2, 3, 4)] == [5, 25, 45, 65]


def test_quarters_of_equal_levels_still_hold_a_quarter_each():
    found = jnp.arange(8.0)
    quarters = by_quarter(found, jnp.ones(8))
    assert [quarters[f'loss_q{i}'] for i in (1, 2, 3, 4)] == [0.5, 2.5, 4.5, 6.5]


# Two networks in one run


@pytest.mark.slow
def test_a_step_moves_both_networks():
    _, parts = wired()
    optimizer = optim.make('adam', 1e-3)
    step = jax.jit(make_train_step(parts.objective, optimizer, {}, jax.random.key(0)))
    params = jax.jit(parts.model.init)(jax.random.key(0))
    rng = np.random.default_rng(0)
    image = jnp.float32(rng.uniform(-1, 1, (8, 8, 8, 1)))
    batch = {'image': image, 'label': jnp.arange(8)}
    state, metrics = step(init_state(params, parts.objective, optimizer, {}), batch, ())
    assert np.isfinite(metrics['loss']) and metrics['kl'] < 1e-3  # it starts at standard noise
    moved = jax.tree.map(lambda a, b: np.any(a != b), params, state.params)
    for path, leaf in tree.flatten(moved).items():
        assert leaf, path
