"""Daubechies' filter db3, and the transform with it: orthogonal, and blind to quadratics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax.core import wavelet


def test_the_filter_is_daubechies_in_closed_form():
    """Of the roots of the polynomial that makes three moments vanish."""
    a, b = np.sqrt(10), np.sqrt(5 + 2 * np.sqrt(10))
    h = [1 + a + b, 5 + a + 3 * b, 10 - 2 * a + 2 * b, 10 - 2 * a - 2 * b, 5 + a - 3 * b, 1 + a - b]
    np.testing.assert_allclose(wavelet.DB3[::-1], np.array(h) / (16 * np.sqrt(2)), atol=1e-12)


def test_the_filters_are_orthonormal_and_three_moments_vanish():
    h, g = wavelet.DB3, wavelet.DB3_HIGH
    for m in range(3):
        for a, b, expected in ((h, h, m == 0), (g, g, m == 0), (h, g, 0)):
            assert np.isclose(a[2 * m :] @ b[: 6 - 2 * m], expected, atol=1e-11)
            assert np.isclose(b[2 * m :] @ a[: 6 - 2 * m], expected, atol=1e-11)
    assert np.isclose(h.sum(), np.sqrt(2), atol=1e-11)
    moments = [np.arange(6.0) ** p @ g for p in range(4)]
    np.testing.assert_allclose(moments[:3], 0, atol=1e-10)
    assert abs(moments[3]) > 1


@pytest.mark.parametrize('height, width', [(8, 8), (7, 10)])
def test_the_transform_is_an_isometry_that_its_transpose_undoes(height, width):
    x = jax.random.normal(jax.random.key(0), (2, height, width, 3))
    bands = jax.jit(wavelet.analyse)(x)
    assert bands.shape == (4, 2, (height + 5) // 2, (width + 5) // 2, 3)
    np.testing.assert_allclose(jnp.sum(bands**2), jnp.sum(x**2), rtol=1e-5)
    (back,) = jax.linear_transpose(wavelet.analyse, x)(bands)
    np.testing.assert_allclose(back, x, atol=1e-5)


def test_a_coefficient_is_the_sum_over_its_definition():
    x = np.asarray(jax.random.normal(jax.random.key(1), (1, 8, 9, 1)))
    padded = np.pad(x[0, :, :, 0], 6)
    filters, found = (wavelet.DB3, wavelet.DB3_HIGH), wavelet.analyse(x)
    for band, row, column in ((0, 0, 0), (1, 2, 3), (2, 5, 1), (3, 3, 6)):
        expected = sum(
            filters[band // 2][i]
            * filters[band % 2][j]
            * padded[6 + 2 * row + 1 - i, 6 + 2 * column + 1 - j]
            for i in range(6)
            for j in range(6)
        )
        np.testing.assert_allclose(found[band, 0, row, column, 0], expected, atol=1e-5)


def test_details_of_a_quadratic_are_zero_inside():
    i = jnp.arange(16.0)
    x = (1 + i + i**2 / 8)[None, :, None, None] * (2 - i / 4 + i**2 / 16)[None, None, :, None]
    details = jax.jit(wavelet.analyse)(x)[1:, 0, 2:-2, 2:-2, 0]
    np.testing.assert_allclose(details, 0, atol=2e-5 * float(jnp.max(jnp.abs(x))))
