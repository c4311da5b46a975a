"""Optimisers by name, from optax, and the learning rate of a step."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from cm_jax.errors import UserError, build_from, check_name
from cm_jax.types import Array

OPTIMISERS = {'adam': optax.adam, 'radam': optax.radam}
DECAYS = ('constant', 'inverse_sqrt')
MAX_RADAM_B2 = 0.999


class Optimizer(NamedTuple):
    """An optax transformation, and `learning_rate(n)`: the rate of the update after n updates."""

    init: Callable
    update: Callable
    learning_rate: Callable[[Array], Array | float]


def schedule(
    learning_rate: float, warmup_steps: int = 0, decay: str = 'constant', decay_steps: int = 0
) -> optax.Schedule:
    """Returns the learning rate after n updates: learning_rate min(n / warmup_steps, 1) d(n).

    d is 1 for 'constant', and 1 / sqrt(max(n / decay_steps, 1)) for 'inverse_sqrt' (EDM2, arXiv
    2312.02696, and ECT's from it on ImageNet). Raises UserError on a setting out of its range.
    """
    check_name('optimizer.decay', decay, DECAYS)
    if learning_rate <= 0 or warmup_steps < 0:
        raise UserError(
            'optimizer needs learning_rate > 0 and warmup_steps >= 0, got '
            f'{learning_rate}, {warmup_steps}'
        )
    if (decay_steps < 1) if decay == 'inverse_sqrt' else (decay_steps != 0):
        raise UserError(
            "optimizer.decay_steps is 0 for decay 'constant' and at least 1 for 'inverse_sqrt', got "
            f'{decay_steps} for {decay!r}'
        )
    rate = optax.constant_schedule(learning_rate)
    if warmup_steps:
        rate = optax.linear_schedule(0.0, learning_rate, warmup_steps)
    if decay == 'constant':
        return rate
    return lambda n: rate(n) / jnp.sqrt(jnp.maximum(n / decay_steps, 1.0))


def make(
    name: str,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    warmup_steps: int = 0,
    decay: str = 'constant',
    decay_steps: int = 0,
    clip: float = 0.0,
) -> Optimizer:
    """Returns the optimiser `name`, one of OPTIMISERS, with the learning rate of `schedule`.

    A gradient whose global norm is above `clip` is scaled down to it; 0 leaves gradients as they are.

    'radam' is optax's. It rectifies where rho_t >= 5, and PyTorch's where rho_t > 5: in both the sixth
    and later steps. But optax computes rho_t in float32 as a difference of numbers near 2 / (1 - b2).
    Measured against PyTorch's formula in float64, its steps are within 1e-4 for b2 = 0.99, within
    0.6 % for 0.999 (the sixth and seventh; 0.03 % at the 50th), and wrong by factors of 2 to 170 in
    the first ten for 0.9999 and 0.99993. So b2 is at most MAX_RADAM_B2 for 'radam'; 'adam' takes any.
    Raises UserError on a setting out of its range.
    """
    check_name('optimizer', name, OPTIMISERS)
    rate = schedule(learning_rate, warmup_steps, decay, decay_steps)
    if clip < 0 or not (0 <= b1 < 1 and 0 <= b2 < 1):
        raise UserError(
            f'optimizer needs clip >= 0, and b1 and b2 in [0, 1), got {clip}, {b1}, {b2}'
        )
    if name == 'radam' and b2 > MAX_RADAM_B2:
        raise UserError(f"optimizer 'radam' needs b2 <= {MAX_RADAM_B2}, got {b2}")
    varies = warmup_steps or decay != 'constant'  # else the state needs no counter of its own
    optimiser = OPTIMISERS[name](rate if varies else learning_rate, b1=b1, b2=b2, eps=eps)
    if clip:
        optimiser = optax.chain(optax.clip_by_global_norm(clip), optimiser)
    return Optimizer(optimiser.init, optimiser.update, rate)


def build(settings: Mapping[str, Any]) -> Optimizer:
    """Returns the optimiser of the section `optimizer`."""
    return build_from('optimizer', make, settings)
