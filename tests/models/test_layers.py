"""Parts of networks: skip scaling, resampling, attention, labels that are dropped."""

import jax
import jax.numpy as jnp
import numpy as np

from cm_jax import models
from cm_jax.models import layers, unet
from tests.helpers.networks import inputs, jitted, relative_error, weights


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


def test_dropped_labels_follow_the_key_and_the_rate():
    label, key = jnp.arange(10_000) % 10, jax.random.key(0)
    np.testing.assert_array_equal(unet.drop_labels(label, 0.3, None), label)
    np.testing.assert_array_equal(unet.drop_labels(label, 0.0, key), label)
    found = unet.drop_labels(label, 0.3, key)
    np.testing.assert_array_equal(found, unet.drop_labels(label, 0.3, key))
    assert abs(np.mean(found == -1) - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 10_000)
    np.testing.assert_array_equal(found[found >= 0], label[found >= 0])


def test_skip_scaling_is_cuds():
    """phi(0) = phi and phi(1) = 1 - phi; at phi = 1/2 nothing is scaled."""
    x, _ = inputs()
    params = weights('ddpmpp')
    t = jnp.float32([[0.0], [0.5], [1.0]])
    plain = jitted('ddpmpp')(params, x, t)
    half = jitted('ddpmpp', skip_scaling=0.5)(params, x, t)
    np.testing.assert_allclose(half, plain, atol=1e-5)
    found = jitted('ddpmpp', skip_scaling=0.75)(params, x, t)
    changed = [relative_error(one, other) > 1e-2 for one, other in zip(found, plain)]
    assert changed == [True, False, True]
    features, skip = jnp.ones((2, 1, 1, 1)), jnp.ones((2, 1, 1, 1))
    phi = 0.75 + jnp.float32([0.0, 1.0]) * (1 - 2 * 0.75)
    np.testing.assert_allclose(unet.join(features, skip, phi)[:, 0, 0], [[1.5, 0.5], [0.5, 1.5]])


def test_wide_filter_keeps_constants_inside_and_is_its_own_adjoint():
    rng = np.random.default_rng(0)
    taps = (1, 3, 3, 1)
    x, y = jnp.float32(rng.standard_normal((2, 8, 6, 3))), rng.standard_normal((2, 4, 3, 3))
    down, up = layers.resample(x, 'down', taps), layers.resample(jnp.float32(y), 'up', taps)
    assert down.shape == y.shape and up.shape == x.shape
    np.testing.assert_allclose(jnp.vdot(down, y), jnp.vdot(x, up) / 4, rtol=1e-4)
    ones = jnp.ones((1, 8, 8, 1))
    np.testing.assert_allclose(layers.resample(ones, 'down', taps)[:, 1:-1, 1:-1], 1, rtol=1e-6)
    np.testing.assert_allclose(layers.resample(ones, 'up', taps)[:, 1:-1, 1:-1], 1, rtol=1e-6)
    for mode in ('down', 'up'):
        narrow = layers.filter_down(x, (1, 1), 0) if mode == 'down' else layers.filter_up(x, (1, 1))
        np.testing.assert_allclose(layers.resample(x, mode), narrow, atol=1e-6)


def test_heads_attend_apart():
    rng = np.random.default_rng(0)
    q, k, v = jnp.float32(rng.standard_normal((3, 2, 5, 12)))
    whole = layers.multi_head_attention(q, k, v, 3)
    parts = [layers.attention(*(a[..., i : i + 4] for a in (q, k, v))) for i in (0, 4, 8)]
    np.testing.assert_allclose(whole, jnp.concatenate(parts, axis=-1), atol=1e-6)
