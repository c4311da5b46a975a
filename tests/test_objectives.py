"""Objectives: one table of them all and one set of tests over it; then ECT's own."""

import functools
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax import optim
from cm_jax.core import curriculum, distance, ema, noise, precond, process, weighting
from cm_jax.core.process import expand
from cm_jax.errors import UserError
from cm_jax.objectives import base, ect
from cm_jax.train_step import init_state, make_train_step

VE = process.build('ve', 0.002, 80.0)
RF = process.build('rf', 1e-3, 1.0)
SIGMA_DATA = 0.5
SHAPE = (4, 4, 2)
BATCH = 8
STAGE = 5  # steps a stage, in the table


class Row(NamedTuple):
    """An objective: settings beside the common ones, the process it is for, and one it refuses."""

    name: str
    settings: dict
    process: Any = VE
    refuses: Any = RF

    def build(self, net=None, **changes):
        settings = {'name': self.name, 'sigma_data': SIGMA_DATA} | self.settings | changes
        return base.build(settings, net or dropped_net, self.process)


TABLE = [
    Row('edm', {}),
    Row('ect', {'double_every': STAGE}),
    Row('ect', {'double_every': STAGE, 'q': 4.0, 'c': 0.06, 'weight': 'edm'}),
]
each_objective = pytest.mark.parametrize(
    'row',
    TABLE,
    ids=lambda row: '-'.join([row.name, *(str(value) for value in row.settings.values())]),
)


def dropped_net(params, x, cond, label=None, key=None):
    """A small network with all that objectives use: noise level, label, dropout by key."""
    h = (
        jnp.einsum('bhwc,cd->bhwd', x, params['in'])
        + expand(cond[:, 0], x) * params['cond'][None, None, None]
    )
    if label is not None:
        h = h + params['label'][label][:, None, None]
    h = jnp.sin(h)
    if key is not None:
        h = jnp.where(jax.random.bernoulli(key, 0.5, h.shape), 2 * h, 0)
    return jnp.einsum('bhwd,dc->bhwc', h, params['out'])


def make_params(dtype=np.float32):
    rng = np.random.default_rng(0)
    shapes = {'in': (2, 6), 'cond': (6,), 'label': (3, 6), 'out': (6, 2)}
    return {name: jnp.asarray(rng.standard_normal(shape), dtype) for name, shape in shapes.items()}


def make_batch(dtype=np.float32, batch=BATCH):
    rng = np.random.default_rng(1)
    image = np.clip(SIGMA_DATA * rng.standard_normal((batch, *SHAPE)), -1, 1)
    return {'image': jnp.asarray(image, dtype), 'label': jnp.arange(batch) % 3}


def test_every_objective_is_in_the_table():
    assert {row.name for row in TABLE} == set(base.names())


def value_and_grad(row, net=None, **changes):
    """(params, batch, key, step) -> ((mean loss, (loss, metrics)), gradient)."""
    objective = row.build(net, **changes)

    def mean(params, batch, key, step):
        loss, metrics = objective.loss(params, objective.init(params), (), batch, key, step)
        return jnp.mean(loss), (loss, metrics)

    return jax.value_and_grad(mean, has_aux=True)


@functools.cache
def jitted(index):
    return jax.jit(value_and_grad(TABLE[index]))


def run(row, key=0, step=0):
    """(loss, metrics, gradient) of a row on the common weights and batch."""
    arguments = make_params(), make_batch(), jax.random.key(key), jnp.int32(step)
    (_, (loss, metrics)), gradient = jitted(TABLE.index(row))(*arguments)
    return loss, metrics, gradient


@each_objective
def test_loss_is_finite_by_example_and_says_its_noise_level(row):
    loss, metrics, _ = run(row)
    chex.assert_shape([loss, *metrics.values()], (BATCH,))
    chex.assert_tree_all_finite((loss, metrics))
    assert np.all(loss > 0)
    assert np.all(metrics['t'] > 0) and len(np.unique(metrics['t'])) == BATCH


@each_objective
def test_gradient_is_finite_and_reaches_every_parameter(row):
    for step in (0, 7 * STAGE):
        for leaf in jax.tree.leaves(run(row, step=step)[2]):
            assert np.all(np.isfinite(leaf)) and np.any(leaf != 0)


@each_objective
def test_step_compiles_once_across_steps_and_stages(row):
    params, batch = make_params(), make_batch()
    objective, optimizer = row.build(), optim.make('adam', 1e-3)
    averages = ema.averages((0.9,), (0.1,))
    chex.clear_trace_counter()
    step = make_train_step(objective, optimizer, averages, jax.random.key(0))
    step = jax.jit(chex.assert_max_traces(step, n=1))
    state = init_state(params, objective, optimizer, averages)
    for at in (0, 1, STAGE - 1, STAGE, 3 * STAGE):
        state, metrics = step(state._replace(step=jnp.int32(at)), batch, ())
        assert np.isfinite(metrics['loss']) and metrics['skipped'] == 0
        assert state.step == at + 1


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
def test_perfect_network_has_the_loss_of_the_best_denoiser(row):
    """Of data that are one image: D(x, t) = x0 whatever x, and the loss is 0."""
    x0 = jnp.full(SHAPE, 0.3)

    def net(params, x, cond, label=None, key=None):
        """F with skip x_t + out F = x0, from EDM's scalings; x = in x_t."""
        t = expand(jnp.exp(4 * cond[:, 0]), x)
        total = jnp.sqrt(t**2 + SIGMA_DATA**2)
        return (x0[None] - SIGMA_DATA**2 / total * x) * total / (t * SIGMA_DATA) + 0 * params

    batch = {'image': jnp.tile(x0[None], (BATCH, 1, 1, 1)), 'label': jnp.zeros(BATCH, jnp.int32)}
    objective = row.build(net, p_std=0.5)
    for step in (0, 2 * STAGE):
        loss, metrics = objective.loss(
            jnp.zeros(()), (), (), batch, jax.random.key(0), jnp.int32(step)
        )
        scale = weighting.edm(metrics['t'], metrics['t'], SIGMA_DATA)
        assert np.all(loss < 1e-4 * scale)


@each_objective
def test_wrong_process_and_unknown_settings_are_refused_by_name(row):
    with pytest.raises(
        UserError, match=f"objective '{row.name}' is defined on process ve, got 'rf'"
    ):
        row._replace(process=row.refuses).build()
    with pytest.raises(
        UserError, match=r"config\.objective\.p_meen.*did you mean 'p_mean'.*legal: "
    ):
        row.build(p_meen=1.0)
    with pytest.raises(UserError, match=r'config\.objective lacks sigma_data'):
        settings = {'name': row.name} | row.settings
        base.build(settings, dropped_net, row.process)


def test_unknown_objective_lists_those_there_are():
    with pytest.raises(UserError, match=r"unknown objective 'etc' .*legal: ect, edm"):
        base.build({'name': 'etc'}, dropped_net, VE)
    with pytest.raises(UserError, match=r'unknown objective None; legal: '):
        base.build({}, dropped_net, VE)


# ECT


@pytest.mark.parametrize(
    'settings, message',
    [
        ({'double_every': 0}, 'double_every >= 1'),
        ({'q': 1.0}, 'q > 1'),
        ({'c': -0.1}, 'c >= 0'),
        ({'k': -1.0}, 'k >= 0'),
        ({'b': 0.0}, 'b > 0'),
        ({'weight': 'snr'}, "unknown weighting 'snr'; legal: edm, inverse_gap, uniform"),
    ],
)
def test_ect_refuses_settings_out_of_range(settings, message):
    with pytest.raises(UserError, match=message):
        TABLE[1].build(**settings)


def paper_denoise(params, x, t, label=None, key=None):
    """The 'network' of the fixtures: x/(1+t) + 0.1 tanh(x cos(t))."""
    t = expand(t, x)
    return x / (1 + t) + 0.1 * jnp.tanh(x * jnp.cos(t))


FILES = ('objective_ect_cifar10', 'objective_ect_cifar10_1hour', 'objective_ect_imagenet64')
WEIGHTS = {'1/(t-r)': 'inverse_gap', '(t^2+sd^2)/(t*sd)^2': 'edm'}


def paper_stages(recorded, name):
    """Yields (config, x0, stage, {t, x_t, r, per_example_loss}) of a file of fixtures, NHWC."""
    arrays, config = recorded(name)
    assert config['net'] == 'x/(1+t)+0.1*tanh(x*cos(t))'
    x0 = arrays['images_nchw'].transpose(0, 2, 3, 1)
    for key in arrays:
        if key.startswith('loss/') and key.endswith('/t'):
            here = {part: arrays[key[:-1] + part] for part in ('t', 'r', 'per_example_loss')}
            here['x_t'] = arrays[key[:-1] + 'x_t_nchw'].transpose(0, 2, 3, 1)
            yield config, x0, int(key.split('/')[1].removeprefix('stage')), here


def assert_papers_loss(found, paper, weight, c, norm):
    """Within 1e-5, and what float32 leaves of a small difference: the reference was computed in it."""
    rounding = np.asarray(weight) * np.finfo(np.float32).eps * (norm + c)
    error = np.abs(np.asarray(found, np.float64) - paper)
    assert np.all(error < 1e-5 * paper + rounding), error / paper
    assert np.median(error / paper) < 1e-4


@pytest.mark.parametrize('name', FILES)
def test_ect_parts_give_the_papers_loss(recorded, name):
    for config, x0, stage, paper in paper_stages(recorded, name):
        t = jnp.asarray(paper['t'])
        eps = (paper['x_t'] - x0) / expand(paper['t'], x0)
        r = curriculum.ect_r(t, stage, *(config[letter] for letter in 'qkb'))
        np.testing.assert_allclose(r, paper['r'], rtol=1e-5)
        student, target = ect.consistency_pair(
            paper_denoise, VE, {}, jnp.asarray(x0), eps, t, jnp.asarray(paper['r'])
        )
        weight = weighting.get(WEIGHTS[config['weighting']])(t, paper['r'], config['sigma_data'])
        found = weight * distance.pseudo_huber(student, target, config['c'])
        norm = np.linalg.norm(student.reshape(len(t), -1), axis=1)
        assert_papers_loss(found, paper['per_example_loss'], weight, config['c'], norm)


@pytest.mark.parametrize('name', FILES)
def test_ect_loss_at_the_papers_draws_is_theirs(recorded, name, monkeypatch):
    """The whole of `make(...).loss`, with t and eps put in, and a network that inverts the scalings."""

    def net(params, x, cond, label=None, key=None):
        t = jnp.exp(4 * cond[:, 0])
        c = precond.edm_scalings(t, SIGMA_DATA)
        x = x / expand(c.in_, x)
        return (paper_denoise({}, x, t) - expand(c.skip, x) * x) / expand(c.out, x)

    for config, x0, stage, paper in paper_stages(recorded, name):
        assert config['sigma_data'] == SIGMA_DATA
        settings = {letter: config[letter] for letter in 'qkbc'} | {
            'name': 'ect',
            'sigma_data': SIGMA_DATA,
            'double_every': 10,
            'weight': WEIGHTS[config['weighting']],
        }
        with jax.enable_x64(True), monkeypatch.context() as patch:
            x0, t, x_t = (jnp.asarray(a, jnp.float64) for a in (x0, paper['t'], paper['x_t']))
            patch.setattr(noise, 'lognormal', lambda key, n, mean, std, t=t: t)
            eps = (x_t - x0) / expand(t, x0)
            patch.setattr(jax.random, 'normal', lambda key, shape, eps=eps: eps)
            batch, key = {'image': x0, 'label': jnp.zeros(len(t), int)}, jax.random.key(0)
            step = jnp.int32(10 * stage + 9)
            loss, metrics = base.build(settings, net, VE).loss({}, (), (), batch, key, step)
            norm = np.linalg.norm(paper_denoise({}, x_t, t).reshape(len(t), -1), axis=1)
            weight = loss / metrics['distance']
        assert_papers_loss(loss, paper['per_example_loss'], weight, 2 * config['c'], norm)


def pair_inputs():
    x0, t = make_batch()['image'], jnp.geomspace(0.01, 10, BATCH)
    return x0, jax.random.normal(jax.random.key(3), x0.shape), t


def pair(r, params=None, key=None):
    """ECT's student and target for the small network."""
    x0, eps, t = pair_inputs()
    denoise = precond.precondition(dropped_net, lambda t: precond.edm_scalings(t, SIGMA_DATA))
    params = make_params() if params is None else params
    return ect.consistency_pair(denoise, VE, params, x0, eps, t, r, None, key)


def test_ect_target_is_the_image_where_r_is_zero():
    x0, _, t = pair_inputs()
    r = jnp.where(jnp.arange(BATCH) < 4, 0.0, 0.5 * t)
    student, target = pair(r)
    np.testing.assert_array_equal(target[:4], x0[:4])
    assert np.all(np.abs(target - x0).max((1, 2, 3))[4:] > 1e-3)
    assert np.all(np.abs(student - x0).max((1, 2, 3)) > 1e-3)


def test_ect_student_and_target_share_the_dropout_mask():
    _, _, t = pair_inputs()
    key, other = jax.random.split(jax.random.key(4))
    student, target = pair(t, key=key)
    np.testing.assert_array_equal(student, target)
    assert np.abs(student - pair(t, key=other)[1]).max() > 1e-2
    assert np.abs(student - pair(t)[1]).max() > 1e-2


def test_ect_loss_has_no_distance_where_r_reaches_t_under_dropout():
    """At a late stage r = t in float32: any distance left would be that of two dropout masks."""
    objective = TABLE[1].build(weight='edm')
    args = (make_params(), (), (), make_batch(), jax.random.key(0))
    loss, metrics = objective.loss(*args, jnp.int32(40 * STAGE))
    np.testing.assert_array_equal(metrics['gap'], 0)
    np.testing.assert_array_equal(loss, 0)
    assert np.all(objective.loss(*args, jnp.int32(2 * STAGE))[0] > 0)


def test_ect_target_has_no_gradient():
    _, _, t = pair_inputs()
    sums = lambda params: jnp.array([jnp.sum(one) for one in pair(0.5 * t, params)])  # noqa: E731
    for leaf in jax.tree.leaves(jax.jacobian(sums)(make_params() | {'label': jnp.zeros(())})):
        if leaf.ndim > 1:
            assert np.any(leaf[0] != 0)
            np.testing.assert_array_equal(leaf[1], 0)


def test_ect_before_any_consistency_is_edm():
    """With the gap all of t, ECT's distance is the root of the squared error that EDM averages."""
    settings = {'p_mean': 0.0, 'p_std': 0.5}
    args = (make_params(), (), (), make_batch(), jax.random.key(0), jnp.int32(0))
    _, of_ect = TABLE[1].build(**settings, k=1e6).loss(*args)
    loss, of_edm = TABLE[0].build(**settings).loss(*args)
    np.testing.assert_array_equal(of_ect['t'], of_edm['t'])
    np.testing.assert_array_equal(of_ect['gap'], 1)
    weight = weighting.edm(of_edm['t'], of_edm['t'], SIGMA_DATA)
    np.testing.assert_allclose(of_ect['distance'] ** 2 / np.prod(SHAPE), loss / weight, rtol=1e-5)


def test_ect_samples_behind_the_boundary_condition():
    x = make_batch()['image']
    found = TABLE[1].build().denoise(make_params(), x, jnp.full(BATCH, VE.t_min))
    np.testing.assert_array_equal(found, x)
