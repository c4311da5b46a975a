"""Consistency objectives with the defaults of their papers, and networks that are formulas."""

import jax
import jax.numpy as jnp

from cm_jax.core import precond
from cm_jax.core.process import expand
from cm_jax.objectives import _consistency
from cm_jax.objectives import build as build_objective
from tests.helpers.objectives import BATCH, SIGMA_DATA, STAGE, VE, dropped_net, make_batch

SAME_NOISE = _consistency.same_noise(VE)
DEFAULTS = {
    'edm': {},
    'ect': {'double_every': STAGE},
    'ct': {'total_steps': 800_000},
    'ict': {'total_steps': 400_000},
    'cd': {},
    'pd': {'halve_every': STAGE, 'start_steps': 16},
}


def build(name, net=dropped_net, teacher_denoise=None, **settings):
    """An objective with the paper's defaults."""
    settings = {'name': name, 'sigma_data': SIGMA_DATA} | DEFAULTS[name] | settings
    return build_objective(settings, net, VE, teacher_denoise)


def behind(denoise, scalings):
    """The network that is `denoise(x, t)` behind the scalings; 0 where they leave it no part."""

    def net(params, x, cond, label=None, key=None):
        t = jnp.exp(4 * cond[:, 0])
        c = scalings(t)
        x = x / expand(c.in_, x)
        out = expand(c.out, x)
        away = denoise(x, t) - expand(c.skip, x) * x
        return jnp.where(jnp.abs(out) < 1e-12, 0, away / jnp.where(out == 0, 1, out))

    return net


def boundary(t):
    return precond.boundary_scalings(t, SIGMA_DATA, VE.t_min)


def pair_inputs():
    x0, t = make_batch()['image'], jnp.geomspace(0.01, 10, BATCH)
    return x0, jax.random.normal(jax.random.key(3), x0.shape), t
