"""MeanFlow: the numbers of its code, its fixed point, its limit rectified flow, its times, guidance."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax.core.process import expand
from cm_jax.errors import UserError
from cm_jax.objectives import build as build_objective
from cm_jax.objectives.mean_flow import (
    TIME_LAWS,
    draw_times,
    loss_of_example,
    velocity_and_derivative,
)
from tests.helpers.gaussian import DATA, points
from tests.helpers.objectives import BATCH, RF, SHAPE, dropped_net, make_batch, make_params


def build(net=dropped_net, **settings):
    return build_objective({'name': 'mean_flow'} | settings, net, RF)


def losses(objective, batch=None, key=0):
    batch = make_batch() if batch is None else batch
    return jax.jit(objective.loss)(make_params(), (), (), batch, jax.random.key(key), 0)


@pytest.mark.parametrize('dtype, tolerance', [(np.float64, 1e-9), (np.float32, 1e-5)])
def test_numbers_are_those_of_the_papers_code(recorded, dtype, tolerance):
    """In float32 the rounding of du/dt comes into the target, and into the gradient as a difference."""
    arrays, config = recorded('objective_fewstep')
    a = config['a']

    def u(p, z, t, h):
        t, h = expand(t, z), expand(h, z)
        return p * jnp.sin(a[0] * z) * (1 - a[1] * t) + a[2] * z * h + a[3] * jnp.cos(t + 2 * h)

    def mean_loss(p, z, v, t, r):
        found = velocity_and_derivative(functools.partial(u, p), z, v, t, r)
        each = loss_of_example(*found, v, t, r)
        return jnp.mean(each), (*found, each)

    with jax.enable_x64(dtype == np.float64):
        x0, eps, *expected_images = (
            np.moveaxis(arrays[f'meanflow/{name}_nchw'], 1, -1)
            for name in ('x0', 'eps', 'u', 'dudt')
        )
        t, r, expected_loss, expected_slope = (
            arrays[f'meanflow/{name}'] for name in ('t', 'r', 'loss', 'grad_p_of_mean_loss')
        )
        z = (1 - expand(t, x0)) * x0 + expand(t, x0) * eps
        given = [jnp.asarray(x, dtype) for x in (config['p'], z, eps - x0, t, r)]
        (_, found), slope = jax.value_and_grad(mean_loss, has_aux=True)(*given)
    for one, expected in zip((*found, slope), (*expected_images, expected_loss, expected_slope)):
        assert one.dtype == dtype
        np.testing.assert_allclose(one, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def test_the_average_velocity_of_gaussian_data_is_a_fixed_point():
    """With the velocity of the marginal in the place of a sample of it, u - target is 0."""
    with jax.enable_x64(True):
        for now, then in ((1.0, 0.001), (0.8, 0.3), (0.5, 0.499), (0.3, 0.3)):
            x = points(RF, now)
            t, r = (jnp.full(len(x), level) for level in (now, then))

            def u(z, t, h):
                gap = expand(jnp.where(h == 0, 1, h), z)
                moved = (z - DATA.solve(RF, z, t, t - h)) / gap
                return jnp.where(
                    expand(h, z) == 0, (z - DATA.denoise(RF, z, t)) / expand(t, z), moved
                )

            v = (x - DATA.denoise(RF, x, t)) / now
            if now == then:
                found = u(x, t, t - r), jnp.zeros_like(x)
            else:
                found = velocity_and_derivative(u, x, v, t, r)
            scale = float(jnp.mean(v**2))
            assert np.all(loss_of_example(*found, v, t, r, norm_p=0.0) < 1e-20 * scale + 1e-24)
            wrong = found[0] + 0.01
            assert np.all(loss_of_example(wrong, found[1], v, t, r, norm_p=0.0) > 0.9e-4)


def test_with_one_time_it_is_rectified_flow():
    """Loss and gradient, with the sum over an image's values in the place of the mean."""
    law = {'p_mean': 0.3, 'p_std': 0.8}
    ours = build(equal_share=1.0, norm_p=0.0, **law)
    flow = build_objective({'name': 'flow'} | law, dropped_net, RF)
    arguments = make_batch(), jax.random.key(4), 0

    def mean(objective, params):
        return jnp.mean(objective.loss(params, (), (), *arguments)[0])

    (one, slope), (other, other_slope) = (
        jax.jit(jax.value_and_grad(functools.partial(mean, o)))(make_params()) for o in (ours, flow)
    )
    size = np.prod(SHAPE)
    np.testing.assert_allclose(one, size * other, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, size * b, rtol=1e-4, atol=1e-5),
        slope,
        other_slope,
    )


def test_the_adaptive_weight_changes_the_length_of_a_gradient_alone():
    z = jax.random.normal(jax.random.key(0), (BATCH, *SHAPE))
    t, r = jnp.full(BATCH, 0.7), jnp.full(BATCH, 0.2)
    slope = lambda p: jax.grad(lambda u: jnp.sum(loss_of_example(u, z, z, t, r, 1e-3, p)))(2 * z)  # noqa: E731
    d = np.sum(np.square(2 * z - 0.5 * z), axis=(1, 2, 3), keepdims=True)
    np.testing.assert_allclose(slope(0.75), slope(0.0) / (d + 1e-3) ** 0.75, rtol=1e-5)


@pytest.mark.parametrize('name', TIME_LAWS)
def test_times_have_their_laws(name):
    law, count = TIME_LAWS[name], 40_000
    t, r = map(np.asarray, draw_times(jax.random.key(0), count, RF, name, law, 0.25))
    assert np.all((RF.t_min <= r) & (r <= t) & (t <= RF.t_max))
    rng = np.random.default_rng(0)
    one, other = (
        RF.t_min + (RF.t_max - RF.t_min) / (1 + np.exp(-mean - std * rng.standard_normal(count)))
        for mean, std in (law[:2], law[2:])
    )
    later = np.maximum(one, other) if name == 'v0' else one
    earlier = np.minimum(one, other)
    equal = (t == r).mean()
    expected = 0.25 + 0.75 * (later == earlier).mean()  # v1 replaces r by t where it is above t
    np.testing.assert_allclose(equal, expected, atol=0.01)
    for found, wanted in ((t, later), (r[r < t], earlier[earlier < later])):
        quantiles = [np.quantile(x, (0.1, 0.5, 0.9)) for x in (found, wanted)]
        np.testing.assert_allclose(*quantiles, atol=0.015)


def test_one_evaluation_is_the_jump_to_0_and_a_jump_nowhere_stays():
    objective, params, x = build(), make_params(), make_batch()['image']
    t = jnp.linspace(0.2, 1.0, BATCH)
    np.testing.assert_array_equal(objective.jump(params, x, t, t), x)
    to_0 = objective.jump(params, x, t, jnp.zeros_like(t))
    np.testing.assert_array_equal(objective.denoise(params, x, t), to_0)
    cond = jnp.stack([t, t], axis=1)
    expected = x - expand(t, x) * dropped_net(params, x, cond)
    np.testing.assert_allclose(to_0, expected, rtol=1e-6)


def test_guidance_has_the_guided_velocity_as_its_target():
    """Of a network that knows the velocities: v of a class, and v with no class, both constant."""

    def net(params, x, cond, label=None, key=None):
        side = -1.0 if label is None else 2.0
        return side + 0 * params['in'][0, 0] * x

    batch = {'image': jnp.zeros((BATCH, *SHAPE)), 'label': jnp.zeros(BATCH, jnp.int32)}
    plain = losses(build(net, equal_share=1.0, norm_p=0.0), batch)[1]['distance']
    omega, kappa = 1.5, 0.25
    objective = build(net, equal_share=1.0, norm_p=0.0, guidance=omega, guidance_mix=kappa)
    found = losses(objective, batch)[1]['distance']
    # v ~ N(0, 1) here: the same draws in both. d = mean (2 - target)^2
    _, key_x1, _ = jax.random.split(jax.random.key(0), 3)
    v = jax.random.normal(key_x1, (BATCH, *SHAPE))
    axes = (1, 2, 3)
    np.testing.assert_allclose(plain, jnp.mean((2 - v) ** 2, axis=axes), rtol=1e-5)
    target = omega * v + kappa * 2.0 + (1 - omega - kappa) * -1.0
    np.testing.assert_allclose(found, jnp.mean((2 - target) ** 2, axis=axes), rtol=1e-5)


def test_augmentation_tells_the_network_six_labels():
    shapes = []

    def net(params, x, cond, label=None, key=None):
        shapes.append(cond.shape)
        return dropped_net(params, x, cond, label, key)

    objective = build(net, augment=0.5)
    assert objective.augment_dim == 6
    jax.eval_shape(objective.loss, make_params(), (), (), make_batch(), jax.random.key(0), 0)
    assert set(shapes) == {(BATCH, 2 + 6)}


def test_wrong_settings_are_refused():
    for settings, message in (
        ({'time_law': 'v2'}, r"time_law 'v2'.*legal: v0, v1"),
        ({'guidance_mix': 0.5}, 'guidance_mix = 0.5 needs a guidance'),
        ({'equal_share': 1.5}, r'equal_share must be .*\[0, 1\], got 1.5'),
    ):
        with pytest.raises(UserError, match=message):
            build(**settings)
