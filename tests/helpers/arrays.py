"""Arrays that several tests draw, noise levels among them, and functions of them in float64."""

import jax
import jax.numpy as jnp
import numpy as np

LEVELS = np.geomspace(0.002, 80, 40)


def normal(seed, shape):
    return jax.random.normal(jax.random.key(seed), shape)


def in_float64(function, *arguments):
    """`function` of the arguments in float64, as numpy arrays."""
    with jax.enable_x64(True):
        found = function(*jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), arguments))
        return jax.tree.map(np.asarray, found)


def noise_image(shape, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)
