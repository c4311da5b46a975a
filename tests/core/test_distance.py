"""Distances between images: their values, and gradients that stay finite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax.core import distance, process
from tests.helpers.arrays import normal


def test_l1_and_l2_are_means_over_an_example():
    a, b = normal(0, (3, 4, 4, 2)), normal(1, (3, 4, 4, 2))
    difference = np.asarray(a - b).reshape(3, -1)
    np.testing.assert_allclose(distance.l1(a, b), np.abs(difference).mean(1), rtol=1e-6)
    np.testing.assert_allclose(distance.l2(a, b), (difference**2).mean(1), rtol=1e-6)


def test_pseudo_huber_without_c_is_the_euclidean_distance():
    a, b = normal(0, (3, 4, 4, 2)), normal(1, (3, 4, 4, 2))
    euclidean = np.linalg.norm(np.asarray(a - b).reshape(3, -1), axis=1)
    np.testing.assert_allclose(distance.pseudo_huber(a, b, 0.0), euclidean, rtol=1e-6)
    np.testing.assert_allclose(distance.pseudo_huber(a, b, 1e-6), euclidean, rtol=1e-6)


@pytest.mark.parametrize('c, size', [(1e4, 1.0), (1e6, 1.0), (0.03, 1e-5)])
def test_pseudo_huber_of_a_small_difference_is_its_square_over_2c(c, size):
    a = normal(0, (3, 4, 4, 2))
    square = np.sum(np.asarray(a, np.float64).reshape(3, -1) ** 2, axis=1) * size**2
    found = distance.pseudo_huber(size * a, jnp.zeros_like(a), c)
    np.testing.assert_allclose(found, square / (2 * c), rtol=1e-5)


@pytest.mark.parametrize('c', [0.0, 0.03])
def test_pseudo_huber_is_zero_with_zero_gradient_where_the_images_are_equal(c):
    a = normal(0, (3, 4, 4, 2))
    values, gradient = jax.value_and_grad(lambda b: jnp.sum(distance.pseudo_huber(a, b, c)))(a)
    assert values == 0
    np.testing.assert_array_equal(gradient, 0)


def test_pseudo_huber_gradient_is_finite_for_the_least_differences():
    gradient = jax.grad(lambda a: jnp.sum(distance.pseudo_huber(a, jnp.zeros_like(a), 0.0)))
    for size in 10.0 ** np.arange(-25, -10):
        a = jnp.full((1, 4), size)
        assert np.all(np.abs(gradient(a)) <= 0.51)  # 1/2, or 0 where the square underflows


@pytest.mark.parametrize('c', [0.0, 0.03, 2.0])
def test_pseudo_huber_gradient_is_the_difference_over_the_root(c):
    a, b = normal(0, (3, 4, 4, 2)), normal(1, (3, 4, 4, 2))
    gradient = jax.grad(lambda a: jnp.sum(distance.pseudo_huber(a, b, c)))(a)
    root = jnp.sqrt(jnp.sum((a - b) ** 2, axis=(1, 2, 3)) + c**2)
    np.testing.assert_allclose(gradient, (a - b) / process.expand(root, a), rtol=1e-5, atol=1e-7)
