"""A run whose weights are two networks: the velocity and the prior."""

import functools

from cm_jax.wiring import wire
from tests.helpers import tiny
from tests.helpers.tiny import settings_of


@functools.cache
def wired(prior=True):
    config = tiny.get_config('catch_up')
    if not prior:
        config.prior.name = ''
    return config, wire(settings_of(config), (8, 8, 1), 10)
