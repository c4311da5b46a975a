"""The EDM2 U-Net: magnitudes, dropout, constants, the log variance."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cm_jax.core import tree
from cm_jax.models import edm2_unet
from tests.helpers.networks import inputs, is_fixed, jitted, relative_error, weights


def test_constants_stay_and_do_not_count():
    params = weights('edm2')
    sizes = {path[-1]: leaf.size for path, leaf in tree.flatten(params).items() if is_fixed(path)}
    assert set(sizes) == {'fixed_freqs', 'fixed_phases'}
    everything = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert tree.count(params) == everything - 2 * (16 + 128)  # of level and of uncertainty
    fixed = {'/'.join(p): leaf for p, leaf in tree.flatten(params).items() if is_fixed(p)}
    optimizer = optax.radam(0.1)
    zeros = jax.tree.map(jnp.zeros_like, fixed)  # the gradient, by the test above
    updates, _ = optimizer.update(zeros, optimizer.init(fixed), fixed)
    jax.tree.map(np.testing.assert_array_equal, optax.apply_updates(fixed, updates), fixed)


def test_edm2_drops_at_low_resolutions_only():
    """With no block at or below the largest resolution that drops, dropout changes nothing."""
    x, cond = inputs()
    params, key = weights('edm2'), jax.random.key(1)
    plain = jitted('edm2')(params, x, cond)
    for limit, drops in ((2, False), (4, True)):
        net = jitted('edm2', dropout=0.4, dropout_resolution=limit)
        np.testing.assert_allclose(net(params, x, cond), plain, atol=1e-5)
        found = net(params, x, cond, None, key)
        assert (relative_error(found, plain) > 1e-2) == drops


def test_normalized_weights_have_unit_rows_and_leave_the_network_as_it_is():
    params = jax.tree_util.tree_map_with_path(
        lambda path, leaf: 100 * leaf if path[-1].key == 'kernel' else leaf, weights('edm2', 3)
    )
    once = edm2_unet.normalize_weights(params)
    twice = edm2_unet.normalize_weights(once)
    for path, leaf in tree.flatten(once).items():
        if path[-1] == 'kernel':
            rows = np.sqrt(np.mean(np.asarray(leaf) ** 2, axis=tuple(range(leaf.ndim - 1))))
            np.testing.assert_allclose(rows, 1, atol=3e-4)
        else:
            np.testing.assert_array_equal(leaf, tree.flatten(params)[path])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=3e-4), once, twice)
    x, cond = inputs()
    net = jitted('edm2', 3)
    assert relative_error(net(once, x, cond), net(params, x, cond)) < 5e-3


def test_magnitude_preserving_operations_preserve_magnitude():
    rng = np.random.default_rng(0)
    a, b = jnp.float32(rng.standard_normal((2, 4000, 24)))
    size = lambda x: float(jnp.sqrt(jnp.mean(x**2)))  # noqa: E731
    assert abs(size(edm2_unet.mp_silu(a)) - 1) < 0.01
    assert abs(size(edm2_unet.mp_sum(a, b, 0.3)) - 1) < 0.01
    assert abs(size(edm2_unet.mp_concat(a, b[:, :8], 0.5)) - 1) < 0.01
    assert abs(size(edm2_unet.mp_concat(a, b[:, :8], 0.5)[:, 24:]) ** 2 * 8 / 32 - 0.5) < 0.01
    np.testing.assert_allclose(size(edm2_unet.unit_magnitude(9 * a, -1)), 1, atol=1e-3)
    zero = jax.grad(lambda x: jnp.sum(edm2_unet.unit_magnitude(x, -1)))(jnp.zeros((1, 4)))
    assert np.all(np.isfinite(zero))


def test_log_variance_needs_its_own_parameters_alone():
    params = weights('edm2')
    _, cond = inputs()
    own = {k: v for k, v in params.items() if k.startswith('logvar')}
    found = edm2_unet.log_variance(own, cond)
    assert found.shape == (3,) and len(np.unique(found)) == 3
