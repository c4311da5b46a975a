"""The train step: accumulation, averages, non-finite steps, the loss by noise level."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cm_jax import models
from cm_jax.core import ema, process, tree
from cm_jax.errors import UserError
from cm_jax.objectives import Objective
from cm_jax.objectives import build as build_objective
from cm_jax.training import optim
from cm_jax.training.optim import Optimizer
from cm_jax.training.step import QUARTERS, by_quarter, init_state, make_train_step

RATES = (0.5, 0.9)
SIGMA_RELS = (0.05, 0.1)
AVERAGES = ema.averages(RATES, SIGMA_RELS)
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


def sgd(rate):
    return Optimizer(*optax.sgd(rate), learning_rate=optax.constant_schedule(rate))


def start(accumulate=1, optimizer=None, objective=objective(), **settings):  # noqa: B008
    optimizer = optimizer or optim.make('adam', 1e-2)
    key = jax.random.key(0)
    step = make_train_step(objective, optimizer, AVERAGES, key, accumulate, **settings)
    return init_state(make_params(), objective, optimizer, AVERAGES), jax.jit(step)


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


def test_power_averages_are_their_coefficients_from_the_first_step_on():
    state, step = start()
    history = []
    for i in range(7):
        state, _ = step(state, make_batch(i), ())
        history.append(state.params)
        for sigma_rel in SIGMA_RELS:
            coefficients = ema.power_coefficients(range(1, i + 2), sigma_rel)
            combined = tree.linear_combination(tree.stack(history), coefficients)
            chex.assert_trees_all_close(state.emas[f'power{sigma_rel}'], combined, rtol=1e-5)


def test_averages_count_a_skipped_step():
    """The profile is over the steps of the trajectory, whose number is all that a snapshot says."""
    state, step = start()
    state, _ = step(state, make_batch(), ())
    first = state.params
    state, _ = step(state, spoil(make_batch(), 0, np.nan), ())
    state, _ = step(state, make_batch(1), ())
    share = 1 - (2 / 3) ** (ema.sigma_rel_to_gamma(0.1) + 1)
    expected = tree.lerp(first, state.params, share)
    chex.assert_trees_all_close(state.emas['power0.1'], expected, rtol=1e-5)


def test_refs_are_updated_from_the_new_weights():
    state, step = start()
    after, _ = step(state, make_batch(), ())
    chex.assert_trees_all_close(after.refs, tree.lerp(state.refs, after.params, 0.1), rtol=1e-6)


# Projection


def test_averages_and_refs_take_the_projected_weights():
    project = lambda params: params | {'scale': jnp.float32(7.0)}  # noqa: E731
    state, step = start(optimizer=sgd(0.1), project=project)
    _, plain = start(optimizer=sgd(0.1))
    after, unprojected = step(state, make_batch(), ())[0], plain(state, make_batch(), ())[0]
    chex.assert_trees_all_equal(after.params, project(unprojected.params))
    chex.assert_trees_all_close(after.emas['power0.1'], after.params, rtol=1e-6)
    chex.assert_trees_all_close(after.emas['0.5']['scale'], (0.5 + 7) / 2, rtol=1e-6)
    chex.assert_trees_all_close(after.refs, tree.lerp(state.refs, after.params, 0.1), rtol=1e-6)


def row_sizes(params):
    """{path: root mean square of each output's weights} of an EDM2 network."""
    return {
        path: np.sqrt(np.mean(np.square(leaf), axis=tuple(range(leaf.ndim - 1))))
        for path, leaf in tree.flatten(params).items()
        if path[-1] == 'kernel'
    }


def test_edm2_trains_with_weights_of_unit_size_and_averages_of_those():
    settings = {'name': 'edm2_unet', 'channels': 8, 'channel_mult': (1,), 'num_blocks': 1}
    model = models.build(settings | {'attn_resolutions': ()}, (4, 4, 1), 0)
    edm = build_objective(
        {'name': 'edm', 'sigma_data': 0.5}, model.net, process.variance_exploding()
    )
    optimizer, averages = optim.make('adam', 0.1), ema.averages((0.5,), (0.1,))
    first = jax.jit(model.init)(jax.random.key(0))
    state = init_state(model.project(first), edm, optimizer, averages)
    key = jax.random.key(1)
    batch = {'image': jax.random.normal(key, (8, 4, 4, 1)), 'label': jnp.full(8, -1)}
    step = jax.jit(make_train_step(edm, optimizer, averages, key, project=model.project))
    expected = state.params
    for i in range(4):
        state, _ = step(state, batch, ())
        expected = tree.lerp(expected, state.params, 0.5)
        if i == 0:
            chex.assert_trees_all_close(state.emas['power0.1'], state.params, rtol=1e-5, atol=1e-6)
    for (path, sizes), before in zip(row_sizes(state.params).items(), row_sizes(first).values()):
        np.testing.assert_allclose(sizes, 1, atol=3e-4, err_msg=str(path))
        assert np.abs(before - 1).max() > 0.01
    chex.assert_trees_all_close(state.emas['0.5'], expected, rtol=1e-5, atol=1e-6)
    moved = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), state.params, model.project(first))
    assert sum(float(m) > 0.01 for m in jax.tree.leaves(moved)) >= len(row_sizes(first)) - 1


@pytest.mark.parametrize('name', ['song_unet', 'adm_unet'])
def test_other_networks_leave_their_weights(name):
    assert models.build({'name': name}, (32, 32, 3), 0).project(params := make_params()) is params


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


@pytest.mark.parametrize('warmup_steps', [0, 3, 20])
def test_rate_falls_with_the_root_of_the_step(warmup_steps):
    settings = {'warmup_steps': warmup_steps, 'decay': 'inverse_sqrt', 'decay_steps': 8}
    steps = np.arange(40)
    expected = 0.1 / np.sqrt(np.maximum(steps / 8, 1))
    if warmup_steps:
        expected = expected * np.minimum(steps / warmup_steps, 1)
    rate = optim.schedule(0.1, **settings)
    np.testing.assert_allclose([rate(jnp.int32(n)) for n in steps], expected, rtol=1e-5)
    optimizer = optim.make('adam', 0.1, eps=0.0, **settings)
    params, state, moves = jnp.zeros(1), optimizer.init(jnp.zeros(1)), []
    for _ in steps:
        update, state = optimizer.update(jnp.ones(1), state, params)
        moves.append(-float(update[0]))  # Adam's step is the rate for a constant gradient
    np.testing.assert_allclose(moves, expected, rtol=1e-4)


def test_logged_rate_is_that_of_the_update_and_waits_where_a_step_is_skipped():
    optimizer = optim.make('adam', 0.1, warmup_steps=2, decay='inverse_sqrt', decay_steps=2)
    state, step = start(optimizer=optimizer)
    found = []
    for bad in (False, True, True, False, False, False):
        batch = spoil(make_batch(), 0, np.nan) if bad else make_batch()
        state, metrics = step(state, batch, ())
        found.append(float(metrics['learning_rate']))
    expected = [0, 0.05, 0.05, 0.05, 0.1, 0.1 / np.sqrt(1.5)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    counts = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.dtype == jnp.int32]
    assert counts and all(count == 4 for count in counts)


def torch_radam(gradients, b1, b2, eps=1e-8):
    """PyTorch's RAdam (its documentation's formula) at rate 1, in float64: steps, rho by step."""
    m = v = 0.0
    steps, rhos, limit = [], [], 2 / (1 - b2) - 1
    for t, g in enumerate(np.asarray(gradients, np.float64), 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        rho = limit - 2 * t * b2**t / (1 - b2**t)
        step = m / (1 - b1**t)
        if rho > 5:
            ratio = (rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho)
            step = step * np.sqrt(ratio * (1 - b2**t)) / (np.sqrt(v) + eps)
        steps.append(-step)
        rhos.append(rho)
    return np.array(steps), np.array(rhos)


def radam_steps(gradients, b1, b2):
    optimizer = optim.OPTIMISERS['radam'](1.0, b1=b1, b2=b2)
    update = jax.jit(optimizer.update)
    state, steps = optimizer.init(jnp.zeros(gradients.shape[1])), []
    for g in gradients:
        step, state = update(g, state)
        steps.append(step)
    return np.array(steps)


@pytest.mark.parametrize('b1, b2, error', [(0.9, 0.99, 3e-4), (0.9, 0.999, 8e-3), (0.5, 0.9, 3e-4)])
def test_radam_is_that_of_pytorch_within_its_rounding(b1, b2, error):
    gradients = np.random.default_rng(0).uniform(0.2, 1.5, (80, 4)).astype(np.float32)
    expected, rho = torch_radam(gradients, b1, b2)
    assert not np.any(rho == 5) and 1 + np.argmax(rho > 5) == 6  # so > and >= begin alike
    found = radam_steps(gradients, b1, b2)
    np.testing.assert_allclose(found[:5], expected[:5], rtol=1e-5)  # momentum alone
    np.testing.assert_allclose(found, expected, rtol=error)
    np.testing.assert_allclose(found[50:], expected[50:], rtol=5e-4)


def test_radam_is_refused_where_its_rounding_is_larger_than_itself():
    gradients = np.random.default_rng(0).uniform(0.2, 1.5, (10, 4)).astype(np.float32)
    for b2 in (0.9999, 0.99993):
        expected, _ = torch_radam(gradients, 0.9, b2)
        assert np.abs(radam_steps(gradients, 0.9, b2) / expected - 1).max() > 0.5
        with pytest.raises(UserError, match=rf"'radam' needs b2 <= 0.999, got {b2}"):
            optim.make('radam', 1e-3, b2=b2)
    assert optim.make('radam', 1e-3, b2=optim.MAX_RADAM_B2) and optim.make('adam', 1e-3, b2=0.9999)


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
        ({'b1': 1.0}, 'b1 and b2 in'),
        ({'decay': 'cosine'}, "'cosine'; legal: constant, inverse_sqrt"),
        ({'decay': 'inverse_sqrt'}, "at least 1 for 'inverse_sqrt', got 0"),
        ({'decay_steps': 5}, "0 for decay 'constant'.*got 5"),
        ({'momentum': 0.9}, r'config\.optimizer\.momentum.*legal: b1, b2, clip'),
    ],
)
def test_wrong_optimizer_settings_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        optim.build({'name': 'adam', 'learning_rate': 1e-3} | settings)
