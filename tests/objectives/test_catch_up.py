"""CUD and rectified flow: the paper's numbers, Gaussian data in closed form, priors, heads, weights."""

import functools
import json
import time

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from cm_jax import checkpoint, models, run_folder, sharding
from cm_jax import config as configs
from cm_jax.core import noise, ode, precond, tree
from cm_jax.core.process import expand, perturb
from cm_jax.errors import UserError
from cm_jax.generate import build_sampler, make_generator
from cm_jax.lcsc import combine
from cm_jax.models import unet
from cm_jax.objectives import _coupling, catch_up
from cm_jax.objectives import build as build_objective
from cm_jax.run import open_run
from cm_jax.samplers import GenerativeModel
from cm_jax.training import optim
from cm_jax.training.step import init_state, make_train_step
from cm_jax.training.transfer import weights_meaning
from cm_jax.weights import names
from cm_jax.weights.read import read_tensors
from cm_jax.wiring import net_params, wire
from tests.helpers import commands, tiny
from tests.helpers.tiny import settings_of
from tests.objectives.test_all_objectives import (
    BATCH,
    RF,
    dropped_net,
    make_batch,
    make_params,
    several,
    two_heads,
)
from tests.samplers.test_ode_closed_form import DATA, PROCESSES, measured_order

each_order = pytest.mark.parametrize('n', [1, 2, 3])


def build(n, net=dropped_net, prior=None, **settings):
    """An objective of order n with the paper's defaults, on a network whose heads are 1, 1/2, 1/3."""
    settings = {'name': 'catch_up', 'order': n} | settings
    return build_objective(settings, several(net, n, False), RF, prior=prior)


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


def run_loss(objective, step=0, key=0, params=None):
    params = make_params() if params is None else params
    args = (params, (), (), make_batch(), jax.random.key(key), jnp.int32(step))
    return jax.jit(objective.loss)(*args)


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


def test_flow_is_the_ground_truth_term_alone():
    """CUD without its catch-up term, and rectified flow: one mean loss, over many draws."""
    batch = jax.tree.map(lambda x: jnp.tile(x, (500,) + (1,) * (x.ndim - 1)), make_batch())
    plain = lambda params, x, cond, label=None, key=None: dropped_net(params, x, cond, label)  # noqa: E731
    objectives = build(1, plain, catch_up_weight=0.0), build_objective({'name': 'flow'}, plain, RF)
    means = [
        float(jnp.mean(jax.jit(o.loss)(make_params(), (), (), batch, jax.random.key(0), 0)[0]))
        for o in objectives
    ]
    np.testing.assert_allclose(*means, rtol=0.05)


def test_logit_normal_levels_have_their_law():
    u = np.asarray(noise.logit_normal(jax.random.key(0), 20_000, 0.5, 2.0))
    logit = np.log(u / (1 - u))
    np.testing.assert_allclose([logit.mean(), logit.std()], [0.5, 2.0], atol=0.05)
    objective = build_objective({'name': 'flow', 'p_mean': 8.0, 'p_std': 0.1}, dropped_net, RF)
    t = run_loss(objective)[1]['t']
    assert np.all((t > 0.99) & (t < 1))


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


# The learned prior


def test_kl_is_the_closed_form():
    """Against the integral of q log(q/p) on a grid; 0 at N(0, 1) alone."""
    mean, log_variance = np.array([0.0, 0.7, -1.2]), np.array([0.0, -0.5, 1.0])
    x = np.linspace(-25, 25, 200_001)
    std = np.exp(log_variance / 2)[:, None]
    log_q = -((x - mean[:, None]) ** 2) / (2 * std**2) - np.log(std)
    wanted = np.sum(np.exp(log_q) * (log_q + x**2 / 2), axis=1) * (x[1] - x[0]) / np.sqrt(2 * np.pi)
    found = _coupling.kl_to_normal(jnp.asarray(mean)[:, None], jnp.asarray(log_variance)[:, None])
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    both = _coupling.kl_to_normal(jnp.asarray(mean)[None], jnp.asarray(log_variance)[None])
    np.testing.assert_allclose(both, [wanted.mean()], rtol=1e-5)


def test_noise_of_the_prior_has_its_mean_and_variance():
    def prior(params, x, cond, label=None, key=None):
        assert label is None
        np.testing.assert_array_equal(cond, 1)
        return jnp.concatenate([x, jnp.full_like(x, params)], axis=-1)

    x0 = jnp.tile(jnp.array([0.5, -0.3]), (20_000, 1, 1, 1))
    x1, loss, metrics = _coupling.make_coupling(prior, 20.0)(-1.0, x0, jax.random.key(0))
    np.testing.assert_allclose(jnp.mean(x1, axis=(0, 1, 2)), [0.5, -0.3], atol=0.02)
    np.testing.assert_allclose(jnp.std(x1), np.sqrt(np.exp(-1) + 0.4**2), rtol=0.02)
    np.testing.assert_allclose(loss, 20 * metrics['kl'], rtol=1e-6)
    kl = (np.mean([0.25, 0.09]) + np.exp(-1) - 1 + 1) / 2
    np.testing.assert_allclose(metrics['kl'], kl, rtol=1e-5)


@pytest.mark.parametrize('name', ['flow', 'catch_up'])
def test_a_prior_of_standard_noise_is_independent_noise(name):
    """Its mean 0 and log variance 0: no KL, and the losses have one mean."""
    zero = lambda params, x, cond, label=None, key=None: 0 * two_heads(params, x, cond)  # noqa: E731
    settings = {'name': name} | ({'order': 1} if name == 'catch_up' else {})
    without = build_objective(settings, dropped_net, RF)
    learned = build_objective(settings | {'prior_weight': 3.0}, dropped_net, RF, prior=zero)
    draws = range(100)
    loss = [np.mean([run_loss(o, key=k)[0].mean() for k in draws]) for o in (without, learned)]
    np.testing.assert_allclose(*loss, rtol=0.1)
    np.testing.assert_array_equal(run_loss(learned)[1]['kl'], 0)


def test_prior_learns_from_the_velocity_too():
    """Through x1: with the KL's weight 0 its gradient is not 0."""

    def prior(params, x, cond, label=None, key=None):
        return jnp.concatenate([params['shift'] * x, 0 * x], axis=-1)

    def net(params, x, cond, label=None, key=None):
        return dropped_net(params['net'], x, cond, label, key)

    objective = build(1, net, prior, prior_weight=0.0)
    params = {'net': make_params(), 'shift': jnp.float32(0.3)}

    def mean(params):
        return jnp.mean(run_loss(objective, params=params)[0])

    assert abs(jax.grad(mean)(params)['shift']) > 1e-3


# Heads


def test_heads_come_side_by_side_and_one_of_them_samples():
    image = (8, 8, 2)
    settings = {'name': 'song_unet', 'channels': 4, 'channel_mult': (1,), 'num_blocks': 1}
    one, three = (models.build(settings | {'heads': k}, image, 0) for k in (1, 3))
    params = jax.jit(three.init)(jax.random.key(0))
    params = jax.tree.map(lambda x: x + 0.1, params)
    single = {k: v for k, v in params.items() if not k.startswith('head')}
    assert jax.tree.structure(single) == jax.tree.structure(
        jax.eval_shape(one.init, jax.random.key(0))
    )
    x, t = jax.random.normal(jax.random.key(1), (2, *image)), jnp.array([0.3, 0.8])
    f = jax.jit(three.net)(params, x, t[:, None])
    assert f.shape == (2, 8, 8, 6) and f.dtype == jnp.float32
    np.testing.assert_allclose(f[..., :2], jax.jit(one.net)(single, x, t[:, None]), atol=1e-5)
    for head in (1, 2, 3):
        objective = build_objective({'name': 'catch_up', 'order': 3, 'head': head}, three.net, RF)
        x0 = objective.denoise(params, x, t)
        part = f[..., 2 * head - 2 : 2 * head]
        np.testing.assert_allclose(x0, x - expand(t, x) * part, atol=1e-5)


def test_a_sampler_names_the_head():
    """And gets, whichever head the objective samples with, that one's samples."""
    chosen = [build(2, head=head) for head in (1, 2)]
    generative_models = [GenerativeModel(o.denoise, RF, (4, 4, 2), 3, o.heads) for o in chosen]
    mesh = sharding.make_mesh()

    def images(generative_model, spec):
        sampler = build_sampler(spec, generative_model)
        return make_generator(generative_model, sampler, mesh, 5, lambda x0: x0)(
            make_params(), 0, 0
        )

    own = [images(generative_model, 'euler@3') for generative_model in generative_models]
    assert np.abs(own[0] - own[1]).max() > 0.1
    for generative_model in generative_models:
        for head in (1, 2):
            np.testing.assert_array_equal(
                images(generative_model, f'euler@3+head{head}'), own[head - 1]
            )
    assert build_sampler('euler@3+head2+cfg2', generative_models[0])[4:6] == (2, 2.0)
    with pytest.raises(UserError, match=r'has 2 head\(s\); legal: \+head1 to \+head2'):
        build_sampler('euler@3+head3', generative_models[0])
    with pytest.raises(UserError, match=r'has 1 head\(s\); legal: no \+head'):
        build_sampler('euler@3+head1', generative_models[0]._replace(heads=()))


def test_skip_scaling_of_adm_is_that_of_the_other_network():
    settings = {'name': 'adm_unet', 'channels': 16, 'channel_mult': (1,), 'num_blocks': 1}
    settings |= {'attn_resolutions': (), 'channels_per_head': 16}
    x, t = jax.random.normal(jax.random.key(1), (3, 4, 4, 1)), jnp.array([[0.0], [0.5], [1.0]])
    found = []
    for phi in (None, 0.5, 0.75):
        model = models.build(settings | {'skip_scaling': phi, 'noise_scale': 1000.0}, (4, 4, 1), 0)
        params = jax.tree.map(lambda x: x + 0.05, jax.jit(model.init)(jax.random.key(0)))
        found.append(jax.jit(model.net)(params, x, t))
    np.testing.assert_allclose(found[1], found[0], atol=1e-5)
    changed = np.abs(found[2] - found[0]).max(axis=(1, 2, 3)) > 1e-3
    np.testing.assert_array_equal(changed, [True, False, True])
    assert unet.skip_weights(t[:, 0], None) is None
    np.testing.assert_allclose(unet.skip_weights(t[:, 0], 0.75), [0.75, 0.5, 0.25])


# The scalings and grids of rectified flow


def test_denoisers_of_rectified_flow_are_velocities_and_have_their_boundary():
    net = lambda params, x, cond, label=None, key=None: jnp.sin(x) + expand(cond[:, 0], x)  # noqa: E731
    x, t = jax.random.normal(jax.random.key(0), (3, 2)), jnp.array([RF.t_min, 0.4, 1.0])
    velocity = net(None, x, t[:, None])
    denoise = precond.precondition(net, precond.diffusion_scalings(RF, 0.5))
    np.testing.assert_allclose(
        ode.pf_ode(lambda x, t: denoise(None, x, t))(x, t), velocity, atol=1e-3
    )
    consistent = precond.precondition(net, precond.at_boundary(RF, 0.5))(None, x, t)
    np.testing.assert_array_equal(consistent[0], x[0])
    np.testing.assert_allclose(consistent, x - expand(t - RF.t_min, x) * velocity, atol=1e-6)


def test_grids_of_rectified_flow_are_uniform():
    np.testing.assert_allclose(noise.levels(RF, 5), np.linspace(1, 1e-3, 5), rtol=1e-6)
    index = jnp.array([0.0, 1.5, 4.0])
    found = noise.level(RF, index, jnp.int32(5))
    np.testing.assert_allclose(found, [1, 1 - 1.5 / 4 * 0.999, 1e-3], rtol=1e-6)
    np.testing.assert_allclose(noise.sampling_levels(RF, 4), [1, 0.75, 0.5, 0.25, 0])
    np.testing.assert_allclose(
        noise.levels(RF, 3, rho=7.0)[1], ((1 + 1e-3 ** (1 / 7)) / 2) ** 7, rtol=1e-5
    )


@pytest.mark.parametrize('solver, slope', [('euler', 2), ('heun', 3)])
def test_cd_residual_on_rectified_flow_falls_at_the_solvers_order(solver, slope):
    p = PROCESSES['rf']
    scalings = precond.at_boundary(p, 0.5)

    def net(params, x, cond, label=None, key=None):
        t = cond[:, 0]
        away = x - DATA.solve(p, x, t, jnp.full_like(t, p.t_min))
        out = expand(-scalings(t).out, x)
        return jnp.where(out < 1e-12, 0, away / jnp.where(out == 0, 1, out))

    teacher = lambda params, x, t, label=None, key=None: DATA.denoise(p, x, t)  # noqa: E731
    ns, losses = (40, 80, 160), []
    with jax.enable_x64(True):
        x0 = DATA.mean + DATA.std * jax.random.normal(jax.random.key(1), (4000, 1, 1, 1))
        batch = {'image': x0, 'label': jnp.zeros(len(x0), int)}
        for n in ns:
            settings = {'name': 'cd', 'sigma_data': 0.5, 'distance': 'l1'}
            settings |= {'levels': n, 'solver': solver}
            objective = build_objective(settings, net, p, teacher)
            loss, _ = objective.loss({}, (), {}, batch, jax.random.key(0), jnp.int32(0))
            losses.append(jnp.mean(loss))
    assert abs(measured_order(losses, ns) - slope) < 0.15


# Two networks in one run


@functools.cache
def wired(prior=True):
    config = tiny.get_config('catch_up')
    if not prior:
        config.prior.name = ''
    return config, wire(settings_of(config), (8, 8, 1), 10)


def test_two_networks_are_one_model():
    config, parts = wired()
    params = parts.model.init(jax.random.key(0))
    assert set(params) == {models.NET, 'prior'}
    own = net_params(settings_of(config), params)
    plain_config, plain = wired(prior=False)
    bare = jax.eval_shape(plain.model.init, jax.random.key(0))
    assert jax.tree.map(jnp.shape, own) == jax.tree.map(lambda leaf: leaf.shape, bare)
    assert net_params(settings_of(plain_config), own) is own
    x, t = jax.random.normal(jax.random.key(0), (2, 8, 8, 1)), jnp.array([0.4, 0.9])
    label = jnp.array([1, 2])
    found = parts.objective.denoise(params, x, t, label)
    np.testing.assert_array_equal(found, plain.objective.denoise(own, x, t, label))
    other = params | {'prior': jax.tree.map(lambda leaf: leaf + 1, params['prior'])}
    np.testing.assert_array_equal(found, parts.objective.denoise(other, x, t, label))


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


def test_what_weights_mean_names_the_prior_and_no_sigma_data():
    config, _ = wired()
    found = weights_meaning(settings_of(config), (8, 8, 1))
    assert found['prior']['name'] == 'song_unet' and 'sigma_data' not in found
    assert 'dropout' not in found['prior'] and 'dropout' not in found['model']
    plain = weights_meaning(settings_of(tiny.get_config('edm')), (8, 8, 1))
    assert plain['prior'] == {} and plain['sigma_data'] == 0.5


def stored_run(folder):
    """A run folder with two steps of the two networks, not trained."""
    config, parts = wired()
    run_folder.write_config(folder, configs.to_plain(config))
    card = {'name': 'digits', 'split': 'train', 'image_shape': [8, 8, 1], 'num_classes': 10}
    (folder / 'data_card.json').write_text(json.dumps(card))
    with checkpoint.Stream(folder / 'trajectory') as stream:
        for step in (1, 2):
            params = jax.jit(parts.model.init)(jax.random.key(step))
            params = jax.tree.map(lambda leaf: leaf + 0.05, params)
            stream.save(step, {'params': params}, {'step': step})
    return open_run(folder)


def test_a_run_of_two_networks_opens_samples_combines_and_exports(tmp_path):
    run = stored_run(epath.Path(tmp_path / 'run'))
    params = run.params(2)
    images = run.sample(params, 'euler@2', 3)
    assert images.shape == (3, 8, 8, 1) and len(np.unique(images)) > 1
    one_hot = combine.combine(run.params, [1, 2], np.array([0.0, 1.0]))
    chex.assert_trees_all_equal(one_hot, params)
    np.testing.assert_array_equal(run.sample(one_hot, 'euler@2', 3), images)
    half = combine.combine(run.params, [1, 2], np.array([0.5, 0.5]))
    assert np.any(run.sample(half, 'euler@2', 3) != images)

    model = run.config.model.to_dict()
    own = net_params(run.settings, params)
    state = names.to_state(own, model, (8, 8, 1), 10, 'edm')
    assert {'model.head2_norm.weight', 'model.head2_conv.bias'} < set(state)
    chex.assert_trees_all_equal(names.to_params(state, model, (8, 8, 1), 10, 'edm'), own)


def losses(folder):
    return [row['loss'] for row in open_run(folder).metrics()]


@pytest.mark.slow
@pytest.mark.devices
def test_two_networks_train_resume_sample_export_and_are_searched(tmp_path):
    config, whole, again = (
        '--config=tests/helpers/tiny.py:catch_up',
        tmp_path / 'whole',
        tmp_path / 'again',
    )
    commands.run('train', config, f'--workdir={whole}')
    process = commands.start('train', config, f'--workdir={again}')
    path, until = again / 'metrics.jsonl', time.monotonic() + 200
    while not (path.exists() and '"step": 6' in path.read_text()) and time.monotonic() < until:
        time.sleep(0.005)
    process.kill()
    process.communicate()
    commands.run('train', config, f'--workdir={again}')
    assert losses(whole) == losses(again) and len(losses(whole)) == 12
    for step in open_run(whole).steps():
        chex.assert_trees_all_equal(open_run(whole).params(step), open_run(again).params(step))
    assert set(open_run(whole).params()) == {'net', 'prior'}
    assert {'kl', 'catch_up', 'truth'} < set(open_run(whole).metrics()[0])

    run = f'--workdir={whole}'
    assert '4 samples' in commands.run('sample', run, '--count=4', '--sampler=heun@2')
    assert 'step 12' in commands.run('evaluate', run)
    file = tmp_path / 'net.safetensors'
    commands.run('convert', 'export', run, f'--to={file}')
    tensors, metadata = read_tensors(file)
    assert metadata['process'] == 'rf' and 'sigma_data' not in metadata
    assert 'model.head2_conv.weight' in tensors and not any('prior' in name for name in tensors)
    again = ('import', f'--from={file}', '--network=ddpmpp_cifar10', f'--workdir={tmp_path}/in')
    assert 'trained on process' in commands.error('convert', *again)
    search = ('--config=tests/helpers/tiny_search.py:catch_up', f'--config.basis.workdir={whole}')
    commands.run('search', *search, f'--workdir={tmp_path}/lcsc')
    found = open_run(tmp_path / 'lcsc')
    assert set(found.params()) == {'net', 'prior'}
    assert '4 samples' in commands.run('sample', f'--workdir={found.workdir}', '--count=4')


# Refusals


@pytest.mark.parametrize(
    'settings, message',
    [
        ({'order': 4}, 'order 1, 2 or 3.*got order=4'),
        ({'order': 2, 'head': 3}, 'head from 1 to order.*head=3'),
        ({'steps': 0}, 'steps >= 1.*steps=0'),
        ({'step_size': 'rule'}, "unknown step_size 'rule'.*fixed, proportional, uniform"),
        ({'step_size': 'proportional', 'discrete': True}, "uniform or fixed, got 'proportional'"),
        ({'ramp_steps': -1}, 'ramp_steps >= 0, got .*ramp_steps=-1'),
        ({'prior_weight': 20.0}, 'prior_weight 20.0 needs a learned prior: set config.prior'),
    ],
)
def test_wrong_settings_of_catch_up_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        build(1, **settings) if 'order' not in settings else build(
            settings.pop('order'), **settings
        )


@pytest.mark.parametrize(
    'change, message',
    [
        (
            lambda c: c.model.update({'heads': 1}),
            r"'catch_up' needs config\.model\.heads = 2, got 1",
        ),
        (
            lambda c: c.prior.update({'name': 'adm_unet'}),
            "network of a prior 'adm_unet'.*song_unet",
        ),
        (lambda c: c.prior.update({'heads': 3}), r'unknown key config\.prior\.heads'),
        (lambda c: c.prior.update({'chanels': 3}), r"config\.prior\.chanels.*mean 'channels'"),
        (lambda c: c.process.update({'t_max': 2.0}), r't_max in \(0, 1\], got 2.0'),
    ],
)
def test_networks_that_do_not_fit_are_refused(change, message):
    config = tiny.get_config('catch_up')
    change(config)
    with pytest.raises(UserError, match=message):
        wire(settings_of(config), (8, 8, 1), 10)


def test_a_prior_is_refused_where_none_is_taken_and_half_a_law_of_t():
    config = tiny.get_config('ect')
    config.prior.update({'name': 'song_unet', 'channels': 4, 'channel_mult': (1,)})
    with pytest.raises(UserError, match=r"'ect' takes no prior; config\.prior must be empty"):
        wire(settings_of(config), (8, 8, 1), 10)
    with pytest.raises(UserError, match=r'prior_weight must be >= 0, got -1'):
        _coupling.make_coupling(two_heads, -1.0)
    for settings in ({'p_mean': 0.0}, {'p_std': 1.0}):
        with pytest.raises(UserError, match=r'both p_mean and p_std .*or neither'):
            build_objective({'name': 'flow'} | settings, dropped_net, RF)
