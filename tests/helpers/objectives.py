"""A row of the table of objectives, and the network, parameters and batch that they train on."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cm_jax.core import precond, process
from cm_jax.core.process import expand
from cm_jax.objectives import build as build_objective
from cm_jax.objectives import takes_teacher

VE = process.build('ve', 0.002, 80.0)
RF = process.build('rf', 1e-3, 1.0)
SIGMA_DATA = 0.5
SHAPE = (4, 4, 2)
BATCH = 8
VELOCITIES = ('flow', 'catch_up', 'one_step', 'mean_flow')  # objectives whose network is a velocity
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


class Row(NamedTuple):
    """An objective: settings beside the common ones, the process it is for, and one it refuses."""

    name: str
    settings: dict
    passes: int = 2  # of the loss that have dropout: student and target, or the student alone
    process: Any = VE
    refuses: Any = RF  # None: it is for both
    prior: bool = False

    def build(self, net=None, alike=False, **changes):
        net = net or dropped_net
        settings = self.common | {'name': self.name} | self.settings | changes
        teacher = precond.precondition(net, precond.diffusion_scalings(self.process, SIGMA_DATA))
        teacher = teacher if takes_teacher(self.name) else None
        heads, prior = self.settings.get('order', 1), two_heads if self.prior else None
        return build_objective(
            settings, several(net, heads, alike), self.process, teacher, prior=prior
        )

    @property
    def common(self):
        """The settings of the preconditioning; velocities have none."""
        return {} if self.name in VELOCITIES else {'sigma_data': SIGMA_DATA}

    @property
    def needs(self):
        """A setting without a default, or None."""
        needs = {'flow': None, 'mean_flow': None, 'catch_up': 'order', 'one_step': 'total_steps'}
        return needs.get(self.name, 'sigma_data')

    @property
    def typo(self):
        """A misspelt setting, and what was meant."""
        typos = {'catch_up': ('step_siez', 'step_size'), 'ect': ('weihgt', 'weight')}
        typos['one_step'] = ('ema_rat', 'ema_rate')
        with_mean = {name: ('p_meen', 'p_mean') for name in ('edm', 'flow', 'mean_flow')}
        return (typos | with_mean).get(self.name, typos['ect'])

    def teacher(self):
        return make_params(seed=2) if takes_teacher(self.name) else ()
