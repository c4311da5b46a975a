"""ECT: the paper's loss, its target, dropout, and its limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax.core import curriculum, distance, noise, precond, weighting
from cm_jax.core.process import expand
from cm_jax.errors import UserError
from cm_jax.objectives import _consistency
from cm_jax.objectives import build as build_objective
from tests.helpers.consistency import SAME_NOISE, build, pair_inputs
from tests.helpers.objectives import (
    BATCH,
    SHAPE,
    SIGMA_DATA,
    STAGE,
    VE,
    dropped_net,
    make_batch,
    make_params,
)


@pytest.mark.parametrize(
    'settings, message',
    [
        ({'boundary': 80.0}, r'boundary in \[0, t_max = 80\), or None, got 80.0'),
        ({'weight': 'edm'}, "unknown weighting 'edm'; legal: inverse_gap, karras, snr, "),
    ],
)
def test_ect_refuses_settings_that_do_not_fit(settings, message):
    with pytest.raises(UserError, match=message):
        build('ect', **settings)


def paper_denoise(params, x, t, label=None, key=None):
    """The 'network' of the fixtures: x/(1+t) + 0.1 tanh(x cos(t))."""
    t = expand(t, x)
    return x / (1 + t) + 0.1 * jnp.tanh(x * jnp.cos(t))


FILES = ('objective_ect_cifar10', 'objective_ect_cifar10_1hour', 'objective_ect_imagenet64')
WEIGHTS = {'1/(t-r)': 'inverse_gap', '(t^2+sd^2)/(t*sd)^2': 'karras'}


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
        student, target = _consistency.pair(
            paper_denoise, SAME_NOISE, VE, {}, {}, (), jnp.asarray(x0), eps, t, jnp.asarray(r)
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
            loss, metrics = build_objective(settings, net, VE).loss({}, (), (), batch, key, step)
            norm = np.linalg.norm(paper_denoise({}, x_t, t).reshape(len(t), -1), axis=1)
            weight = loss / metrics['distance']
        assert_papers_loss(loss, paper['per_example_loss'], weight, 2 * config['c'], norm)


def pair(r, params=None, key=None):
    """ECT's student and target for the small network."""
    x0, eps, t = pair_inputs()
    denoise = precond.precondition(dropped_net, lambda t: precond.edm_scalings(t, SIGMA_DATA))
    params = make_params() if params is None else params
    return _consistency.pair(denoise, SAME_NOISE, VE, params, params, (), x0, eps, t, r, None, key)


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


@pytest.mark.parametrize('weight', ['karras', 'inverse_gap'])
def test_ect_loss_has_no_distance_where_r_reaches_t_under_dropout(weight):
    """At a late stage r = t in float32: any distance left would be that of two dropout masks."""
    objective = build('ect', weight=weight)
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
    _, of_ect = build('ect', **settings, k=1e6).loss(*args)
    loss, of_edm = build('edm', **settings).loss(*args)
    np.testing.assert_array_equal(of_ect['t'], of_edm['t'])
    np.testing.assert_array_equal(of_ect['gap'], 1)
    weight = weighting.karras(of_edm['t'], of_edm['t'], SIGMA_DATA)
    np.testing.assert_allclose(of_ect['distance'] ** 2 / np.prod(SHAPE), loss / weight, rtol=1e-5)


def test_ect_samples_behind_the_boundary_condition():
    x = make_batch()['image']
    found = build('ect').denoise(make_params(), x, jnp.full(BATCH, VE.t_min))
    np.testing.assert_array_equal(found, x)


def test_samplers_see_the_boundary_that_is_set_and_the_loss_does_not():
    """D(x, boundary) = x; without a boundary it is the denoiser that is trained. None is t_min."""
    x, params = jax.random.normal(jax.random.key(0), (4, *SHAPE)), make_params()
    at = lambda objective, t: objective.denoise(params, x, jnp.full(4, t))  # noqa: E731
    plain, set_to, none = (build('ect', boundary=boundary) for boundary in (None, 0.003, 0.0))
    np.testing.assert_array_equal(at(plain, VE.t_min), x)
    np.testing.assert_array_equal(at(set_to, 0.003), x)
    edm = precond.precondition(dropped_net, lambda t: precond.edm_scalings(t, SIGMA_DATA))
    np.testing.assert_allclose(at(none, 0.1), edm(params, x, jnp.full(4, 0.1)), rtol=1e-6)
    assert np.abs(at(set_to, 0.1) - at(plain, 0.1)).max() > 1e-5
    losses = [
        objective.loss(params, (), (), make_batch(), jax.random.key(1), jnp.int32(0))[0]
        for objective in (plain, set_to, none)
    ]
    np.testing.assert_array_equal(losses[0], losses[1])
    np.testing.assert_array_equal(losses[0], losses[2])
