"""The train step: accumulation, averages, non-finite steps, the loss by noise level."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cm_jax import optim
from cm_jax.core import ema, tree
from cm_jax.errors import UserError
from cm_jax.objectives.base import Objective
from cm_jax.train_step import QUARTERS, by_quarter, init_state, make_train_step

RATES = (0.5, 0.9)
BATCH = 12


def loss(params, refs, teacher, batch, key, step):
    """Regression that ignores its key; t is put in by the batch's label."""
    del refs, teacher, key, step
    x = batch['image']
    found = jnp.mean((x * params['scale'] + params['shift'][None, None, None] - 1) ** 2, (1, 2, 3))
    return found * batch['weight'], {'t': batch['label'].astype(jnp.float32), 'twice': 2 * found}


def objective(loss=loss):
    """`loss`, and refs that follow the weights, as a target network does."""
    return Objective(
        denoise=None,
        init=lambda params: jax.tree.map(jnp.copy, params),
        loss=loss,
        update=lambda refs, params, step: tree.lerp(refs, params, 0.1),
    )


def make_params():
    return {'scale': jnp.array(0.5), 'shift': jnp.array([0.1, -0.2])}


def make_batch(seed=0):
    rng = np.random.default_rng(seed)
    return {
        'image': jnp.asarray(rng.standard_normal((BATCH, 2, 2, 2)), jnp.float32),
        'label': jnp.asarray(rng.permutation(BATCH)),
        'weight': jnp.ones(BATCH),
    }


def start(accumulate=1, optimizer=None, objective=objective()):  # noqa: B008
    optimizer = optimizer or optim.make('adam', 1e-2)
    step = make_train_step(objective, optimizer, RATES, jax.random.key(0), accumulate)
    return init_state(make_params(), objective, optimizer, RATES), jax.jit(step)


def test_state_starts_at_the_initial_weights():
    state, _ = start()
    for other in (state.params, state.refs, *state.emas.values()):
        chex.assert_trees_all_equal(other, make_params())
    assert set(state.emas) == {'0.5', '0.9'}
    assert state.step == state.skipped == state.skipped_in_row == 0


def test_step_is_the_gradient_step_on_the_mean_loss():
    rate = 0.1
    state, step = start(optimizer=optax.sgd(rate))
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
    state, step = start(optimizer=optax.sgd(0.1))
    _, in_parts = start(accumulate, optimizer=optax.sgd(0.1))
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


def test_averages_follow_their_recursion_and_their_coefficients():
    state, step = start()
    history = [state.params]
    averages = {rate: state.params for rate in RATES}
    for i in range(6):
        state, _ = step(state, make_batch(i), ())
        history.append(state.params)
        averages = {
            rate: jax.tree.map(
                lambda a, p, rate=rate: rate * a + (1 - rate) * p, average, state.params
            )
            for rate, average in averages.items()
        }
    for rate in RATES:
        coefficients = ema.coefficients(len(history), rate)
        combined = tree.linear_combination(tree.stack(history), coefficients)
        chex.assert_trees_all_close(state.emas[str(rate)], averages[rate], rtol=1e-5)
        chex.assert_trees_all_close(state.emas[str(rate)], combined, rtol=1e-5)


def test_refs_are_updated_from_the_new_weights():
    state, step = start()
    after, _ = step(state, make_batch(), ())
    chex.assert_trees_all_close(after.refs, tree.lerp(state.refs, after.params, 0.1), rtol=1e-6)


# Non-finite steps


def spoil(batch, index, value):
    return batch | {'weight': batch['weight'].at[index].set(value)}


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


# Optimisers


def test_learning_rate_rises_linearly_over_the_warm_up():
    optimizer = optim.make('adam', 0.1, warmup_steps=4, eps=0.0)
    params, state, moves = jnp.zeros(1), optimizer.init(jnp.zeros(1)), []
    for _ in range(7):
        update, state = optimizer.update(jnp.ones(1), state, params)
        moves.append(-float(update[0]))  # Adam's step is the rate for a constant gradient
    np.testing.assert_allclose(moves, [0, 0.025, 0.05, 0.075, 0.1, 0.1, 0.1], rtol=1e-4)


def test_clip_bounds_the_gradients_norm():
    gradient = {'a': jnp.array([3.0]), 'b': jnp.array([4.0])}
    for clip, scale in ((1.0, 0.2), (10.0, 1.0)):
        clipped, plain = optim.make('adam', 1e-3, clip=clip), optim.make('adam', 1e-3)
        scaled = jax.tree.map(lambda g, scale=scale: scale * g, gradient)
        moments = [
            o.update(g, o.init(gradient))[1] for o, g in ((clipped, gradient), (plain, scaled))
        ]
        chex.assert_trees_all_close(*map(jax.tree.leaves, moments), rtol=1e-6)


@pytest.mark.parametrize(
    'settings, message',
    [
        ({'name': 'sgdm'}, "unknown optimizer 'sgdm'; legal: adam, radam"),
        ({'name': 'adm'}, "did you mean 'adam'"),
        ({'learning_rate': 0.0}, 'learning_rate > 0'),
        ({'warmup_steps': -1}, 'warmup_steps >= 0'),
        ({'clip': -1.0}, 'clip >= 0'),
        ({'momentum': 0.9}, r'config\.optimizer\.momentum.*legal: b1, b2, clip'),
    ],
)
def test_wrong_optimizer_settings_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        optim.build({'name': 'adam', 'learning_rate': 1e-3} | settings)
