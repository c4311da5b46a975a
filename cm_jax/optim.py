"""Optimisers by name, from optax."""

from collections.abc import Mapping
from typing import Any

import optax

from cm_jax.errors import UserError, call, check_name

OPTIMISERS = {'adam': optax.adam, 'radam': optax.radam}


def make(
    name: str,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    warmup_steps: int = 0,
    clip: float = 0.0,
) -> optax.GradientTransformation:
    """The optimiser `name`, one of OPTIMISERS.

    The learning rate rises linearly from 0 over `warmup_steps`. The gradient is scaled down to a
    global norm of `clip` where it is longer; 0 leaves it.
    """
    check_name('optimizer', name, OPTIMISERS)
    if learning_rate <= 0 or warmup_steps < 0 or clip < 0:
        raise UserError(
            'optimizer needs learning_rate > 0, warmup_steps >= 0 and clip >= 0, got '
            f'{learning_rate}, {warmup_steps}, {clip}'
        )
    rate = learning_rate
    if warmup_steps:
        rate = optax.linear_schedule(0.0, learning_rate, warmup_steps)
    optimiser = OPTIMISERS[name](rate, b1=b1, b2=b2, eps=eps)
    return optax.chain(optax.clip_by_global_norm(clip), optimiser) if clip else optimiser


def build(settings: Mapping[str, Any]) -> optax.GradientTransformation:
    """The optimiser of a config's `optimizer` section."""
    return call('optimizer', make, settings)
