"""Made-up weights of LPIPS under the names of the public files."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cm_jax.models import lpips
from cm_jax.weights import lpips as files

# Index in torchvision's `features`, channels in and out, size, stride, padding; '+': a feature map.
VGG = """
0 3 64 3 1 1, 2 64 64 3 1 1 +, pool 2, 5 64 128 3 1 1, 7 128 128 3 1 1 +, pool 2,
10 128 256 3 1 1, 12 256 256 3 1 1, 14 256 256 3 1 1 +, pool 2,
17 256 512 3 1 1, 19 512 512 3 1 1, 21 512 512 3 1 1 +, pool 2,
24 512 512 3 1 1, 26 512 512 3 1 1, 28 512 512 3 1 1 +
"""

ALEX = """
0 3 64 11 4 2 +, pool 3, 3 64 192 5 1 2 +, pool 3, 6 192 384 3 1 1 +, 8 384 256 3 1 1 +,
10 256 256 3 1 1 +
"""

LAYERS = {k: [line.split() for line in v.split(',')] for k, v in (('vgg', VGG), ('alex', ALEX))}
SHIFT, SCALE = np.array([-0.030, -0.088, -0.188]), np.array([0.458, 0.448, 0.450])


def made_up(network):
    """(features, heads): state dicts under torchvision's and the package's names."""
    rng = np.random.default_rng(0)
    features, heads = {}, {}
    for first, *rest in LAYERS[network]:
        if first == 'pool':
            continue
        inputs, outputs, size = map(int, rest[:3])
        gain = np.float32(np.sqrt(2 / (inputs * size**2)))
        weight = gain * rng.standard_normal((outputs, inputs, size, size), np.float32)
        features[f'features.{first}.weight'] = weight
        features[f'features.{first}.bias'] = rng.normal(0, 0.1, outputs).astype(np.float32)
        if rest[-1] == '+':
            shape = (1, outputs, 1, 1)
            heads[f'lin{len(heads)}.model.1.weight'] = rng.random(shape, np.float32)
    return features, heads


def params_of(network, state):
    features, heads = state
    return files.to_params(features, network, 'features') | files.to_params(heads, network, 'heads')


def images(shape, count=2, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.uniform(-1, 1, shape).astype(np.float32) for _ in range(count)]


class Made(NamedTuple):
    """A made-up AlexNet."""

    measure: Callable  # (params, a, b) -> ([B], gradients of the sum in a and b), no resizing
    params: Any
    state: tuple  # (features, heads)


def measured_alex() -> Made:
    """A made-up AlexNet, with its program."""
    module, state = lpips.Lpips('alex'), made_up('alex')

    def total(a, b, params):
        distances = module.apply({'params': params}, a, b)
        return jnp.sum(distances), distances

    slope = jax.value_and_grad(total, argnums=(0, 1), has_aux=True)

    @jax.jit
    def measure(params, a, b):
        (_, distances), gradients = slope(a, b, params)
        return distances, gradients

    return Made(measure, params_of('alex', state), state)
