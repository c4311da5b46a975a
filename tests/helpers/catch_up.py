"""Catch-Up Distillation with the defaults of its paper."""

import jax
import jax.numpy as jnp

from cm_jax.objectives import build as build_objective
from tests.helpers.objectives import RF, dropped_net, make_batch, make_params, several


def build(n, net=dropped_net, prior=None, **settings):
    """An objective of order n with the paper's defaults, on a network whose heads are 1, 1/2, 1/3."""
    settings = {'name': 'catch_up', 'order': n} | settings
    return build_objective(settings, several(net, n, False), RF, prior=prior)


def run_loss(objective, step=0, key=0, params=None):
    params = make_params() if params is None else params
    args = (params, (), (), make_batch(), jax.random.key(key), jnp.int32(step))
    return jax.jit(objective.loss)(*args)
