"""CUD: the paper's targets, Gaussian data in closed form, levels, weights, dropout."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax.core import ode, wavelet
from cm_jax.core.process import expand, perturb
from cm_jax.errors import UserError
from cm_jax.objectives import catch_up
from tests.helpers.catch_up import build, run_loss
from tests.helpers.gaussian import DATA, PROCESSES, measured_order
from tests.helpers.objectives import BATCH, RF, dropped_net, make_batch, make_params

each_order = pytest.mark.parametrize('n', [1, 2, 3])


# The paper's numbers


@each_order
def test_targets_are_the_papers(recorded, n):
    """`h` in float32, as the reference's is in a float64 computation."""
    arrays, config = recorded('objective_cud')

    def velocity(x, t):
        t = expand(t, x)
        return jnp.sin(2 * x) * (1 - t / 2) + 0.3 * x * t + 0.1

    with jax.enable_x64(True):
        get = lambda name: jnp.asarray(arrays[f'{n}step/{name}'])  # noqa: E731
        x0, x1, t, h = map(get, ('x0_data_nchw', 'x1_noise_nchw', 't', 'h'))
        found = catch_up.targets(velocity, x0, x1, t, h.astype(np.float32), n, config['eps'])
        assert len(found) == n
        for i, target in enumerate(found, 1):
            wanted = get(f'catchup_target_{i}_nchw')
            np.testing.assert_allclose(target, wanted, rtol=0, atol=1e-10)
        exact = catch_up.targets(velocity, x0, x1, t, h, n, config['eps'])
        chex.assert_trees_all_close(exact, found, rtol=0, atol=1e-7)


# Gaussian data, whose velocity is known

SCHEMES = {1: [2], 2: [3, 2], 3: [3, 2, 2]}  # order of each head's error against the exact path


@each_order
def test_targets_approach_the_velocity_ahead_on_the_path_at_their_orders(n):
    """And what the head says now at order 1: the exact velocity is the fixed point of h -> 0."""
    p = PROCESSES['rf']
    hs = np.array([1 / 64, 1 / 128, 1 / 256])
    now, ahead = [], []
    with jax.enable_x64(True):
        velocity = ode.pf_ode(lambda x, t: DATA.denoise(p, x, t))
        key0, key1 = jax.random.split(jax.random.key(0))
        x0 = DATA.mean + DATA.std * jax.random.normal(key0, (64, 1))
        x1, t = jax.random.normal(key1, (64, 1)), jnp.linspace(0.4, 0.9, 64)
        x_t = perturb(p, x0, x1, t)
        for h in hs:
            found = catch_up.targets(velocity, x0, x1, t, jnp.full(64, h), n)
            later = [t - i * h for i in range(1, n + 1)]
            exact = [velocity(DATA.solve(p, x_t, t, s), s) for s in later]
            now.append([float(jnp.abs(a - velocity(x_t, t)).max()) for a in found])
            ahead.append([float(jnp.abs(a - b).max()) for a, b in zip(found, exact)])
    for errors, wanted in ((now, [1] * n), (ahead, SCHEMES[n])):
        measured = [measured_order(errors, 1 / hs) for errors in np.array(errors).T]
        np.testing.assert_allclose(measured, wanted, atol=0.1)


@each_order
def test_straight_paths_are_a_fixed_point_whatever_the_step(n):
    """Of data that are one image the velocity is (x - x0)/t, constant on each path."""
    x0, x1 = jnp.full((4, 3), 0.3), jax.random.normal(jax.random.key(0), (4, 3))
    t, h = jnp.array([1.0, 0.8, 0.5, 0.01]), jnp.array([0.3, 0.05, 0.1, 0.05])
    found = catch_up.targets(lambda x, t: (x - x0) / expand(t, x), x0, x1, t, h, n)
    for target in found:
        np.testing.assert_allclose(target, x1 - x0, atol=1e-5)


@each_order
def test_ground_truth_takes_over_where_the_steps_would_pass_the_end(n):
    eps, h = 1e-3, jnp.full(4, 0.1)
    t = jnp.array([n * 0.1 - 0.01, n * 0.1 + eps / 2, n * 0.1 + 2 * eps, 0.9])
    x0, x1 = jnp.zeros((4, 2)), jnp.ones((4, 2))
    levels = []

    def velocity(x, t):
        levels.append(t)
        return 5 + 0 * x

    for target in catch_up.targets(velocity, x0, x1, t, h, n, eps):
        np.testing.assert_array_equal(target[:, 0], [1, 1, 5, 5])
    assert len(levels) == 2 * n
    assert min(np.min(level) for level in levels) >= np.float32(eps)


def test_targets_have_no_gradient():
    x0, x1 = jnp.zeros((2, 3)), jnp.ones((2, 3))
    t, h = jnp.array([0.9, 0.01]), jnp.full(2, 0.05)

    def total(a):
        return sum(map(jnp.sum, catch_up.targets(lambda x, t: a * x, x0, a * x1, t, h, 3)))

    assert jax.grad(total)(2.0) == 0


# Levels, weights


def draw(step_size, discrete, steps=16):
    key = jax.random.key(0)
    return catch_up.draw_levels(key, 20_000, RF._replace(t_min=1e-5), steps, step_size, discrete)


def test_continuous_levels_and_steps_have_their_laws():
    for step_size in catch_up.STEP_SIZES:
        t, h = draw(step_size, False)
        assert t.min() >= 1e-5 and t.max() <= 1
        np.testing.assert_allclose(np.quantile(t, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.02)
        if step_size == 'uniform':
            assert h.min() >= 0 and h.max() <= 1 / 16 and abs(np.corrcoef(t, h)[0, 1]) < 0.03
            np.testing.assert_allclose(
                np.quantile(h, [0.25, 0.5, 0.75]) * 16, [0.25, 0.5, 0.75], atol=0.02
            )
        else:
            np.testing.assert_allclose(h, (t if step_size == 'proportional' else 1) / 16)


def test_discrete_levels_and_steps_are_on_the_grid():
    t, h = draw('fixed', True)
    np.testing.assert_array_equal(np.unique(np.round(16 * t, 4)), np.arange(1, 17))
    np.testing.assert_allclose(h, 1 / 16)
    t, h = draw('uniform', True)
    np.testing.assert_allclose(16 * h, np.round(16 * h), atol=1e-4)
    assert np.all((h >= 0) & (t - h >= 0.99 / 16))
    of_five = np.round(16 * h[np.round(16 * t) == 5])
    np.testing.assert_allclose(
        np.bincount(of_five.astype(int)) / len(of_five), [0.2] * 5, atol=0.04
    )


def test_weights_are_fixed_or_ramp_over_the_training():
    for step in (0, 50, 1000):
        assert catch_up.loss_weights(step, 1.5, 0.5, 0) == (1.5, 0.5)
    found = [catch_up.loss_weights(step, 1.5, 0.5, 100) for step in (0, 50, 100, 200)]
    np.testing.assert_allclose(found, [(0, 1), (1.5, 0.5), (3, 0), (3, 0)])


@each_order
def test_loss_is_the_weighted_sum_of_its_terms(n):
    plain, (ramped, metrics) = (
        run_loss(build(n, **settings), step=25)
        for settings in ({}, {'ramp_steps': 100, 'catch_up_weight': 2.0})
    )
    loss, terms = plain
    np.testing.assert_allclose(loss, terms['catch_up'] + terms['truth'], rtol=1e-5)
    np.testing.assert_allclose(
        ramped, 2 * 0.25 * 2 * metrics['catch_up'] + 1.5 * metrics['truth'], rtol=1e-5
    )
    assert terms['catch_up'].shape == (BATCH,) and np.all(terms['catch_up'] > 0)
    assert set(terms) == {'t', 'catch_up', 'truth'}


# Dropout


@pytest.mark.parametrize('share', [True, False])
@each_order
def test_masks_are_shared_or_every_pass_has_its_own(n, share):
    keys = []

    def listening(params, x, cond, label=None, key=None):
        keys.append(tuple(jax.random.key_data(key).tolist()))
        return dropped_net(params, x, cond, label, key)

    objective = build(n, listening, share_dropout=share)
    objective.loss(make_params(), (), (), make_batch(), jax.random.key(0), jnp.int32(0))
    assert len(keys) == 2 * n + 1
    assert len(set(keys)) == (1 if share else 2 * n + 1)


# Refusals


@pytest.mark.parametrize(
    'settings, message',
    [
        ({'order': 2, 'head': 3}, 'head from 1 to order = 2, got head=3'),
        ({'step_size': 'rule'}, "unknown step_size 'rule'.*fixed, proportional, uniform"),
        ({'step_size': 'proportional', 'discrete': True}, "uniform or fixed, got 'proportional'"),
        ({'prior_weight': 20.0}, 'prior_weight 20.0 needs a learned prior: set config.prior'),
    ],
)
def test_wrong_settings_of_catch_up_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        build(1, **settings) if 'order' not in settings else build(
            settings.pop('order'), **settings
        )


# The details of an image


def test_the_details_are_the_largest_fifth_of_the_high_bands_of_the_image():
    """Of images in [0, 1], where the data are in [-1, 1]; of the last head."""
    keys = jax.random.split(jax.random.key(0), 2)
    v, prediction = (jax.random.normal(key, (3, 6, 7, 2)) for key in keys)
    bands = np.asarray(wavelet.analyse(prediction) - wavelet.analyse(v))[1:] / 2
    expected = [np.sort(np.abs(bands[:, i]), axis=None)[::-1] for i in range(3)]
    count = int(0.2 * 3 * 5 * 6 * 2)
    found = jax.jit(catch_up.high_frequency)(prediction, v)
    np.testing.assert_allclose(found, [sizes[:count].mean() for sizes in expected], rtol=1e-4)
    loss, metrics = run_loss(build(2, high_frequency_weight=3.0))
    plain, _ = run_loss(build(2))
    np.testing.assert_allclose(loss - plain, 3 * metrics['high_frequency'], rtol=1e-3)
