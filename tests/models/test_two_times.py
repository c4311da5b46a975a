"""Networks of two times: both matter, they are differentiable forwards, and one time can start them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax import models
from cm_jax.errors import UserError
from cm_jax.models import unet
from tests.helpers.networks import NETWORKS, SHAPE, SMALL, inputs, relative_error, weights

ONE_QUICKLY = pytest.mark.parametrize(
    'network',
    ['ddpmpp', *(pytest.param(name, marks=pytest.mark.slow) for name in ('ncsnpp', 'adm', 'edm2'))],
)
TINY = {'channel_mult': (1,), 'attn_resolutions': (8,), 'dropout': 0.2}


def net_of(network, **settings):
    return models.build(SMALL[network] | TINY | settings, SHAPE, 0).net


def two_times(dtype=np.float32):
    """(x, cond) and a tangent of each; the second time is t - r, whose tangent is that of t."""
    x, t = inputs(2)
    rng = np.random.default_rng(3)
    cond = np.concatenate([t, 0.3 * t], axis=1)
    tangents = rng.standard_normal(x.shape), np.ones_like(cond)
    return tuple(jnp.asarray(a, dtype) for a in (x, cond)), tuple(
        jnp.asarray(a, dtype) for a in tangents
    )


def derivative(net, params, at, tangents):
    """(F, dF) in train mode."""
    key = jax.random.key(5)
    return jax.jit(
        lambda at, tangents: jax.jvp(lambda *a: net(params, *a, None, key), at, tangents)
    )(at, tangents)


@ONE_QUICKLY
def test_the_forward_derivative_is_that_of_finite_differences(network, monkeypatch):
    """In float64, put in place of the network's float32. That of bfloat16 is near that of float32."""
    params = weights(network, times=2, **TINY)
    found = {
        dtype: derivative(net_of(network, times=2, dtype=dtype), params, *two_times())
        for dtype in ('float32', 'bfloat16')
    }
    monkeypatch.setitem(unet.DTYPES, 'float32', jnp.float64)
    monkeypatch.setattr(jnp, 'float32', jnp.float64)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
        net, (at, tangents) = net_of(network, times=2), two_times(np.float64)
        _, exact = derivative(net, wide, at, tangents)
        assert exact.dtype == np.float64
        key, step = jax.random.key(5), 1e-5
        f = jax.jit(lambda s: net(wide, *(a + s * b for a, b in zip(at, tangents)), None, key))
        np.testing.assert_allclose(
            exact, (f(step) - f(-step)) / (2 * step), atol=1e-7 * np.abs(exact).max()
        )
    (value, slope), (low_value, low_slope) = found.values()
    assert {a.dtype for a in (value, slope, low_value, low_slope)} == {np.dtype('float32')}
    assert 0 < relative_error(low_slope, slope) < 0.1


@ONE_QUICKLY
def test_weights_of_one_time_start_the_same_function_of_two(network):
    (x, cond), _ = two_times()
    tiny = TINY | ({} if network == 'edm2' else {'augment_dim': 3})
    settings = SMALL[network] | tiny
    model = models.build(settings | {'times': 2}, SHAPE, 3)
    one = models.build(settings, SHAPE, 3).project(weights(network, 3, **tiny))
    two = models.add_time(settings, one, jax.eval_shape(model.init, jax.random.key(0)))
    label, key = jnp.array([0, 2]), jax.random.key(1)
    expected = models.build(settings, SHAPE, 3).net(one, x, cond[:, :1], label, key)
    assert relative_error(model.net(two, x, cond, label, key), expected) < 2e-6

    def other(second):
        return jnp.sum(model.net(second, x, cond, label, key) ** 2)

    gradient = jax.grad(other)(two)
    moved = jax.tree.map(lambda a, g: a - 0.1 * np.sign(g), two, gradient)
    later = [model.net(moved, x, c, label, key) for c in (cond, cond.at[:, 1].add(0.5))]
    assert relative_error(*later) > 1e-4  # the second time is learnt


@NETWORKS
def test_one_time_is_refused_by_its_shape(network):
    (x, cond), _ = two_times()
    params = jax.eval_shape(
        models.build(SMALL[network] | TINY | {'times': 2}, SHAPE, 0).init, jax.random.key(0)
    )
    with pytest.raises(UserError, match=r'cond of shape \(2, 2\), got \(2, 1\)'):
        net_of(network, times=2)(params, x, cond[:, :1])
