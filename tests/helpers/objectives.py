"""A network, its parameters and a batch that every objective trains on."""

import jax
import jax.numpy as jnp
import numpy as np

from cm_jax.core import process
from cm_jax.core.process import expand

VE = process.build('ve', 0.002, 80.0)

RF = process.build('rf', 1e-3, 1.0)

SIGMA_DATA = 0.5

SHAPE = (4, 4, 2)

BATCH = 8

STAGE = 5  # steps a stage, in the table


def dropped_net(params, x, cond, label=None, key=None):
    """A small network with all that objectives use: conditions, label, dropout by key."""
    h = (
        jnp.einsum('bhwc,cd->bhwd', x, params['in'])
        + expand(jnp.sum(cond, axis=1), x) * params['cond'][None, None, None]
    )
    if label is not None:
        h = h + params['label'][label][:, None, None]
    h = jnp.sin(h)
    if key is not None:
        h = jnp.where(jax.random.bernoulli(key, 0.5, h.shape), 2 * h, 0)
    return jnp.einsum('bhwd,dc->bhwc', h, params['out'])


def several(net, heads, alike):
    """`net` with as many heads: its output, alike or divided by 1, 2, 3."""

    def headed(params, x, cond, label=None, key=None):
        f = net(params, x, cond, label, key)
        parts = [f if alike else f / i for i in range(1, heads + 1)]
        return jnp.concatenate(parts, axis=-1)

    return headed


def two_heads(params, x, cond, label=None, key=None):
    """The network of a prior, with the parameters of `dropped_net`."""
    return jnp.concatenate([dropped_net(params, 0.1 * x, cond, None, key), 0.1 * x**2], axis=-1)


def make_params(dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    shapes = {'in': (2, 6), 'cond': (6,), 'label': (3, 6), 'out': (6, 2)}
    return {name: jnp.asarray(rng.standard_normal(shape), dtype) for name, shape in shapes.items()}


def make_batch(dtype=np.float32, batch=BATCH):
    rng = np.random.default_rng(1)
    image = np.clip(SIGMA_DATA * rng.standard_normal((batch, *SHAPE)), -1, 1)
    return {'image': jnp.asarray(image, dtype), 'label': jnp.arange(batch) % 3}
