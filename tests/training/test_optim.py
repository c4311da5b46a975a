"""Optimisers: rates, RAdam as PyTorch's, clipping, and settings that are refused."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax.errors import UserError
from cm_jax.training import optim
from tests.helpers.regression import make_batch, spoil, start


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


def test_rate_falls_to_zero_in_each_stage_and_the_optimiser_begins_anew():
    rate = optim.schedule(0.1, decay='linear', decay_steps=(4, 2))
    found = [float(rate(n)) for n in range(8)]
    np.testing.assert_allclose(found, [0.1, 0.075, 0.05, 0.025, 0.1, 0.05, 0, 0], rtol=1e-5)
    gradients = np.random.default_rng(0).uniform(-1, 1, (7, 3)).astype(np.float32)

    def moves(gradients, **settings):
        optimizer = optim.make('adam', 0.1, **settings)
        state, found = optimizer.init(jnp.zeros(3)), []
        for g in gradients:
            move, state = optimizer.update(jnp.asarray(g), state)
            found.append(move)
        return np.array(found)

    stages = [
        moves(part, decay='linear', decay_steps=n)
        for part, n in ((gradients[:4], 4), (gradients[4:], 2))
    ]
    whole = moves(gradients, decay='linear', decay_steps=[4, 2])
    np.testing.assert_allclose(whole, np.concatenate(stages), rtol=1e-5, atol=1e-9)
    assert np.abs(whole[4] - moves(gradients)[4]).max() > 1e-3 and np.all(whole[6] == 0)


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
        ({'decay': 'cosine'}, "'cosine'; legal: constant, inverse_sqrt"),
        ({'decay': 'inverse_sqrt'}, "at least 1 for 'inverse_sqrt'.*got 0"),
        ({'decay_steps': 5}, "0 for decay 'constant'.*got 5"),
        ({'decay': 'inverse_sqrt', 'decay_steps': (5, 5)}, r"got \(5, 5\) for 'inverse_sqrt'"),
        ({'decay': 'linear'}, "got 0 for 'linear'"),
        ({'decay': 'linear', 'decay_steps': ()}, r"got \(\) for 'linear'"),
        ({'decay': 'linear', 'decay_steps': (5, 0)}, r'decay_steps must be .* got \(5, 0\)'),
        ({'momentum': 0.9}, r'config\.optimizer\.momentum.*legal: b1, b2, clip'),
    ],
)
def test_wrong_optimizer_settings_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        optim.build({'name': 'adam', 'learning_rate': 1e-3} | settings)
