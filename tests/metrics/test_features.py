"""Images are rounded to bytes before features are taken of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from cm_jax.data import to_float
from cm_jax.metrics.features import round_straight_through, round_uint8, to_bytes


def test_bytes_are_what_the_features_see():
    x = jnp.linspace(-1.2, 1.2, 999)
    stored = np.asarray(to_bytes(x))
    assert stored.dtype == np.uint8 and stored.min() == 0 and stored.max() == 255
    np.testing.assert_allclose(to_float(stored), round_uint8(x), atol=2e-7)
    assert to_bytes(jnp.array([jnp.nan])) == 0


def test_rounding_keeps_every_byte_and_is_idempotent():
    levels = to_float(np.arange(256, dtype=np.uint8))
    np.testing.assert_allclose(jax.jit(round_uint8)(levels), levels, rtol=0, atol=2e-7)
    x = jax.random.uniform(jax.random.key(0), (4, 8, 8, 3), minval=-1.5, maxval=1.5)
    rounded = round_uint8(x)
    np.testing.assert_array_equal(round_uint8(rounded), rounded)
    byte = 127.5 * np.asarray(rounded, np.float64) + 127.5
    np.testing.assert_allclose(byte, np.round(byte), rtol=0, atol=2e-5)
    assert np.abs(rounded - np.clip(x, -1, 1)).max() <= 0.5 / 127.5 + 1e-6


def test_rounding_clips_and_keeps_nan():
    np.testing.assert_array_equal(round_uint8(jnp.array([-9.0, 9.0, np.nan])), [-1, 1, np.nan])


def test_rounding_straight_through_rounds_and_has_the_slope_of_a_clip():
    x = jnp.array([-1.5, -1.0, -0.3, 0.0, 0.7001, 1.0, 1.5])
    value, slope = jax.vmap(jax.value_and_grad(lambda x: 3 * round_straight_through(x)))(x)
    np.testing.assert_allclose(value, 3 * round_uint8(x), rtol=1e-6)
    np.testing.assert_array_equal(slope, [0, 3, 3, 3, 3, 3, 0])


def test_the_truncating_rule_is_that_of_consistency_models():
    """((x + 1) * 127.5).clamp(0, 255).to(uint8), for what is stored and for what the features see."""
    x = np.random.default_rng(0).uniform(-1.2, 1.2, (4, 8, 8, 3)).astype(np.float32)
    expected = np.clip((x.astype(np.float64) + 1) * 127.5, 0, 255).astype(np.uint8)
    stored = np.asarray(jax.jit(lambda x: to_bytes(x, 'truncate'))(x))
    assert stored.dtype == np.uint8
    np.testing.assert_array_equal(stored, expected)
    np.testing.assert_allclose(round_uint8(x, 'truncate'), to_float(expected), atol=2e-7)
    lower = to_bytes(x).astype(int) - stored
    assert set(np.unique(lower)) == {0, 1} and 0.3 < lower.mean() < 0.5  # a sixth is clipped
    np.testing.assert_array_equal(
        round_uint8(jnp.array([-9.0, 9, np.nan]), 'truncate'), [-1, 1, np.nan]
    )


def test_truncating_straight_through_truncates_and_has_the_slope_of_a_clip():
    x = jnp.array([-1.5, -1.0, -0.3, 0.0, 0.7001, 1.0, 1.5])
    straight = functools.partial(round_straight_through, rule='truncate')
    value, slope = jax.jit(jax.vmap(jax.value_and_grad(lambda x: 3 * straight(x))))(x)
    np.testing.assert_allclose(value, 3 * round_uint8(x, 'truncate'), rtol=1e-6)
    np.testing.assert_array_equal(slope, [0, 3, 3, 3, 3, 3, 0])
