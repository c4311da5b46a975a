"""Objectives: one table of them all, and one set of tests over it."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cm_jax import sharding
from cm_jax.core import ema, weighting
from cm_jax.core.process import expand
from cm_jax.errors import UserError
from cm_jax.objectives import build as build_objective
from cm_jax.objectives import names as objective_names
from cm_jax.training import optim
from cm_jax.training.step import init_state, make_train_step
from tests.helpers import commands
from tests.helpers.objectives import (
    BATCH,
    RF,
    SHAPE,
    SIGMA_DATA,
    STAGE,
    VE,
    Row,
    dropped_net,
    make_batch,
    make_params,
)

SHARED = {'share_dropout': True}
WALK = {'total_steps': 6 * STAGE, 'teacher_steps': 4, 'estimates': (0, 2, 3)}
TABLE = [
    Row('edm', {}, passes=1),
    Row('ct', {'total_steps': 8 * STAGE, 's1': 10}, refuses=None),
    Row('ict', {'total_steps': 4 * STAGE, 's0': 2, 's1': 16}),
    Row('cd', {'guidance': 2.0, 'target_ema': 0.5}, refuses=None),
    Row('cd', {'solver': 'euler', 'distance': 'l1', 'weight': 'snr_plus_1'}, refuses=None),
    Row('ect', {'double_every': STAGE}),
    Row('ect', {'double_every': STAGE, 'q': 4.0, 'c': 0.06, 'weight': 'karras'}),
    Row('pd', {'halve_every': STAGE, 'start_steps': 16}, passes=1, refuses=None),
    Row('edm', {'augment': 0.5}, passes=1),
    Row('ct', {'total_steps': 8 * STAGE, 's1': 10}, process=RF, refuses=None),
    Row('cd', {'weight': 'snr'}, process=RF, refuses=None),
    Row('pd', {'halve_every': STAGE, 'start_steps': 16}, passes=1, process=RF, refuses=None),
    Row('flow', {}, passes=1, process=RF, refuses=VE),
    Row('flow', {'p_mean': 0.0, 'p_std': 1.0}, passes=1, process=RF, refuses=VE, prior=True),
    *(
        Row('catch_up', {'order': order} | settings, 1 + 2 * order, RF, VE, prior)
        for order, settings, prior in (
            (1, SHARED, False),
            (1, SHARED | {'step_size': 'proportional', 'ramp_steps': 8 * STAGE}, True),
            (2, SHARED | {'head': 2, 'discrete': True, 'high_frequency_weight': 1.0}, False),
            (2, SHARED, True),
            (3, SHARED | {'step_size': 'fixed', 'head': 3}, False),
            (3, SHARED, True),
        )
    ),
    Row('mean_flow', {}, passes=1, process=RF, refuses=VE),
    Row('mean_flow', {'time_law': 'v0', 'guidance': 1.5, 'augment': 0.5}, 1, RF, VE),
    Row('one_step', WALK, passes=1, process=RF, refuses=VE),
    Row('one_step', WALK | {'ema_weight': 0.0}, passes=1, process=RF, refuses=VE),
]

each_objective = pytest.mark.parametrize(
    'row',
    TABLE,
    ids=lambda row: '-'.join(
        [row.name, row.process.name, *map(str, row.settings.values()), *['prior'] * row.prior]
    ),
)


def test_every_objective_is_in_the_table():
    assert {row.name for row in TABLE} == set(objective_names())


def value_and_grad(row, net=None, **changes):
    """(params, batch, key, step) -> ((mean loss, (loss, metrics)), gradient).

    The target network, where there is one, is half way between other weights and these.
    """
    objective, teacher, other = row.build(net, **changes), row.teacher(), make_params(seed=3)

    def mean(params, batch, key, step):
        far = jax.tree.map(lambda a, b: (a + b) / 2, params, other)
        refs = objective.init(jax.lax.stop_gradient(far))
        loss, metrics = objective.loss(params, refs, teacher, batch, key, step)
        return jnp.mean(loss), (loss, metrics)

    return jax.value_and_grad(mean, has_aux=True)


@functools.cache
def jitted(index):
    return jax.jit(value_and_grad(TABLE[index]))


def run(row, key=0, step=0, batch=None):
    """(loss, metrics, gradient) of a row on the common weights and batch."""
    batch = make_batch() if batch is None else batch
    arguments = make_params(), batch, jax.random.key(key), jnp.int32(step)
    (_, (loss, metrics)), gradient = jitted(TABLE.index(row))(*arguments)
    return loss, metrics, gradient


@each_objective
def test_loss_is_finite_by_example_and_says_its_noise_level(row):
    loss, metrics, _ = run(row)
    chex.assert_shape([loss, *metrics.values()], (BATCH,))
    chex.assert_tree_all_finite((loss, metrics))
    assert np.all(loss > 0)
    assert np.all((metrics['t'] > 0) & (metrics['t'] < 1e4))


@each_objective
def test_gradient_is_finite_and_reaches_every_parameter(row):
    for step in (0, 7 * STAGE):
        for leaf in jax.tree.leaves(run(row, step=step)[2]):
            assert np.all(np.isfinite(leaf)) and np.any(leaf != 0)


@each_objective
def test_step_compiles_once_across_steps_and_stages(row):
    batch = make_batch()
    objective, optimizer = row.build(), optim.make('adam', 1e-3)
    averages = ema.averages((0.9,), (0.1,))
    chex.clear_trace_counter()
    step = make_train_step(objective, optimizer, averages, jax.random.key(0))
    step = jax.jit(chex.assert_max_traces(step, n=1))
    state = init_state(make_params(), objective, optimizer, averages)
    for at in (0, 1, STAGE - 1, STAGE, 3 * STAGE):
        state, metrics = step(state._replace(step=jnp.int32(at)), batch, row.teacher())
        assert np.isfinite(metrics['loss']) and metrics['skipped'] == 0
        assert state.step == at + 1


@pytest.mark.slow
@each_objective
def test_jitted_and_not_jitted_agree(row):
    """In float64, where the rounding of the differences that consistency losses take is no matter."""
    with jax.enable_x64(True):
        grad = value_and_grad(row)
        arguments = make_params(np.float64), make_batch(np.float64), jax.random.key(0)
        step = jnp.int32(2 * STAGE)
        chex.assert_trees_all_close(
            jax.jit(grad)(*arguments, step), grad(*arguments, step), rtol=1e-9, atol=1e-12
        )


@each_objective
def test_randomness_is_the_keys(row):
    one, again, other = run(row, key=0), run(row, key=0), run(row, key=1)
    chex.assert_trees_all_equal(one, again)
    assert not np.any(one[0] == other[0])


@each_objective
def test_dropout_takes_part_in_the_loss(row):
    """A network that ignores its key gives another loss."""

    def plain(params, x, cond, label=None, key=None):
        return dropped_net(params, x, cond, label)

    arguments = make_params(), make_batch(), jax.random.key(0), jnp.int32(0)
    (_, (loss, _)), _ = jax.jit(value_and_grad(row, plain))(*arguments)
    assert not np.any(loss == run(row)[0])


@each_objective
def test_denoiser_has_no_dropout_unless_asked_and_sees_level_and_label(row):
    objective, params = row.build(), make_params()
    x, t = make_batch()['image'], jnp.geomspace(0.01, 10, BATCH)
    found = objective.denoise(params, x, t)
    assert found.shape == x.shape
    np.testing.assert_array_equal(found, objective.denoise(params, x, t))
    for other in (
        objective.denoise(params, x, t, None, jax.random.key(0)),
        objective.denoise(params, x, 1.5 * t),
        objective.denoise(params, x, t, jnp.zeros(BATCH, jnp.int32)),
    ):
        assert np.abs(found - other).max() > 1e-4


@each_objective
def test_passes_with_dropout_share_one_mask(row):
    """The keys that reach the network, outside of jit: those of student and target are one."""
    keys = []

    def listening(params, x, cond, label=None, key=None):
        if key is not None:
            keys.append(tuple(jax.random.key_data(key).tolist()))
        return dropped_net(params, x, cond, label, key)

    objective, params = row.build(listening), make_params()
    refs = objective.init(params)
    for step in (0, 3 * STAGE):
        keys.clear()
        objective.loss(
            params, refs, row.teacher(), make_batch(), jax.random.key(0), jnp.int32(step)
        )
        assert len(keys) == row.passes and len(set(keys)) == 1


@pytest.mark.parametrize(
    'row',
    [
        row
        for row in TABLE
        if row.name in ('edm', 'ect', 'pd', 'flow', 'catch_up', 'mean_flow')
        and not row.prior
        and 'guidance' not in row.settings
    ],
)
def test_perfect_network_has_no_loss(row):
    """Of data that are one image: D(x, t) = x0 whatever x, behind the scalings of a denoiser."""
    x0 = jnp.full(SHAPE, 0.3)

    def net(params, x, cond, label=None, key=None):
        """F with skip x_t + out F = x0; x = in x_t."""
        if row.process is RF:
            return (x - x0[None]) / expand(cond[:, 0], x) + 0 * params
        t = expand(jnp.exp(4 * cond[:, 0]), x)
        total = jnp.sqrt(t**2 + SIGMA_DATA**2)
        return (x0[None] - SIGMA_DATA**2 / total * x) * total / (t * SIGMA_DATA) + 0 * params

    batch = {'image': jnp.tile(x0[None], (BATCH, 1, 1, 1)), 'label': jnp.zeros(BATCH, jnp.int32)}
    objective = row.build(net, alike=True)
    refs = objective.init(jnp.zeros(()))
    for step in (0, 2 * STAGE):
        loss, metrics = objective.loss(
            jnp.zeros(()), refs, (), batch, jax.random.key(0), jnp.int32(step)
        )
        scale = weighting.karras(metrics['t'], metrics['t'], SIGMA_DATA)
        assert np.all(loss < 1e-4 * np.maximum(scale, 1))


def losses_over_devices():
    """Losses [B] and gradient norm of every row, with the batch split over all devices there are."""
    place = sharding.by_example(sharding.make_mesh())
    found = []
    for row in TABLE:
        batch = jax.device_put(make_batch(), place)
        loss, _, gradient = run(row, step=2 * STAGE, batch=batch)
        found.append([*loss.tolist(), float(optax.tree.norm(gradient))])
    return found


@pytest.mark.slow
def test_four_devices_give_what_one_gives():
    four = commands.on_devices(4, 'losses_over_devices()', __name__)
    np.testing.assert_allclose(four, losses_over_devices(), rtol=2e-4)


@each_objective
def test_wrong_process_and_unknown_settings_are_refused_by_name(row):
    if row.refuses:
        message = f"'{row.name}' is defined on process {row.process.name}, got '{row.refuses.name}'"
        with pytest.raises(UserError, match=message):
            row._replace(process=row.refuses).build()
    with pytest.raises(
        UserError, match=rf"config\.objective\.{row.typo[0]}.*did you mean '{row.typo[1]}'.*legal: "
    ):
        row.build(**{row.typo[0]: 1.0})
    if row.needs:
        settings = {'name': row.name, **row.common, **row.settings}
        del settings[row.needs]
        with pytest.raises(UserError, match=rf'config\.objective lacks {row.needs}'):
            build_objective(settings, dropped_net, row.process)
