"""Optimisers by name, from optax, and the learning rate of a step."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cm_jax.bounds import Count, Natural, NonNegative, Positive, Rate
from cm_jax.errors import UserError, build_from, check_name
from cm_jax.types import Array

OPTIMISERS = {'adam': optax.adam, 'radam': optax.radam}
DECAYS = ('constant', 'inverse_sqrt', 'linear')
MAX_RADAM_B2 = 0.999


class Optimizer(NamedTuple):
    """An optax transformation, and `learning_rate(n)`: the rate of the update after n updates."""

    init: Callable
    update: Callable
    learning_rate: Callable[[Array], Array | float]


class Restarted(NamedTuple):
    """The state of `restarting`: the number of updates, and the state of the optimiser."""

    updates: Array
    inner: Any


def schedule(
    learning_rate: float,
    warmup_steps: int = 0,
    decay: str = 'constant',
    decay_steps: int | Sequence[int] = 0,
) -> optax.Schedule:
    """Returns the learning rate after n updates: learning_rate min(n / warmup_steps, 1) d(n).

    d is 1 for 'constant', and 1 / sqrt(max(n / decay_steps, 1)) for 'inverse_sqrt' (EDM2, arXiv
    2312.02696, and ECT's from it on ImageNet). For 'linear' it falls from 1 to 0 in each of the stages,
    one after the other, whose lengths `decay_steps` lists (progressive distillation, arXiv 2202.00512),
    and stays 0 after them; a number is one stage. Raises UserError on lengths that do not suit `decay`.
    """
    check_name('optimizer.decay', decay, DECAYS)
    lengths = stage_lengths(decay_steps)
    is_legal = min(lengths, default=0) >= 1 and (len(lengths) == 1 or decay == 'linear')
    if decay == 'constant':
        is_legal = lengths == [0]
    if not is_legal:
        raise UserError(
            "optimizer.decay_steps is 0 for decay 'constant', at least 1 for 'inverse_sqrt', and for "
            f"'linear' the lengths of one or more stages, each at least 1; got {decay_steps} for "
            f'{decay!r}'
        )
    rate = optax.constant_schedule(learning_rate)
    if warmup_steps:
        rate = optax.linear_schedule(0.0, learning_rate, warmup_steps)
    if decay == 'constant':
        return rate
    if decay == 'linear':
        return lambda n: rate(n) * _left_of_stage(n, lengths)
    return lambda n: rate(n) / jnp.sqrt(jnp.maximum(n / lengths[0], 1.0))


def stage_lengths(steps: int | Sequence[int]) -> list[int]:
    """Returns the lengths of stages that a setting names: a number is one stage."""
    return [steps] if isinstance(steps, int) else list(steps)


def _left_of_stage(n: Array, lengths: Sequence[int]) -> Array:
    """Returns the share of its stage that is left after n updates, from 1 to 0; 0 after the last."""
    ends = np.cumsum(lengths)
    stage = jnp.minimum(jnp.searchsorted(jnp.asarray(ends), n, side='right'), len(lengths) - 1)
    left = (jnp.asarray(ends)[stage] - n) / jnp.asarray(lengths)[stage]
    return jnp.maximum(left, 0.0)


def restarting(
    optimiser: optax.GradientTransformation, lengths: Sequence[int]
) -> optax.GradientTransformation:
    """Returns the optimiser with a new state at the start of each stage; the last one does not end."""
    starts = np.cumsum(lengths)[:-1]

    def init(params: Any) -> Restarted:
        return Restarted(jnp.zeros((), jnp.int32), optimiser.init(params))

    def update(updates: Any, state: Restarted, params: Any = None) -> tuple[Any, Restarted]:
        starts_now = jnp.any(state.updates == starts)
        fresh = optimiser.init(updates)
        inner = jax.tree.map(lambda a, b: jnp.where(starts_now, a, b), fresh, state.inner)
        moves, inner = optimiser.update(updates, inner, params)
        return moves, Restarted(state.updates + 1, inner)

    return optax.GradientTransformation(init, update)


def make(
    name: str,
    learning_rate: Positive,
    b1: Rate = 0.9,
    b2: Rate = 0.999,
    eps: NonNegative = 1e-8,
    warmup_steps: Natural = 0,
    decay: str = 'constant',
    decay_steps: Natural | Sequence[Count] = 0,
    clip: NonNegative = 0.0,
) -> Optimizer:
    """Returns the optimiser `name`, one of OPTIMISERS, with the learning rate of `schedule`.

    A gradient whose global norm is above `clip` is scaled down to it; 0 leaves gradients as they are.
    With several stages of 'linear' decay the optimiser begins anew in each, as in the code of
    progressive distillation. Stages are counted in updates: a step that is skipped delays them.

    'radam' is optax's. It rectifies where rho_t >= 5, and PyTorch's where rho_t > 5: in both the sixth
    and later steps. But optax computes rho_t in float32 as a difference of numbers near 2 / (1 - b2).
    Measured against PyTorch's formula in float64, its steps are within 1e-4 for b2 = 0.99, within
    0.6 % for 0.999 (the sixth and seventh; 0.03 % at the 50th), and wrong by factors of 2 to 170 in
    the first ten for 0.9999 and 0.99993. So b2 is at most MAX_RADAM_B2 for 'radam'; 'adam' takes any.
    Raises UserError on a name, or on settings that contradict each other.
    """
    check_name('optimizer', name, OPTIMISERS)
    rate = schedule(learning_rate, warmup_steps, decay, decay_steps)
    if name == 'radam' and b2 > MAX_RADAM_B2:
        raise UserError(f"optimizer 'radam' needs b2 <= {MAX_RADAM_B2}, got {b2}")
    varies = warmup_steps or decay != 'constant'  # else the state needs no counter of its own
    lengths = stage_lengths(decay_steps)
    if len(lengths) > 1:
        of_rate_1 = OPTIMISERS[name](1.0, b1=b1, b2=b2, eps=eps)
        optimiser = optax.chain(restarting(of_rate_1, lengths), optax.scale_by_schedule(rate))
    else:
        optimiser = OPTIMISERS[name](rate if varies else learning_rate, b1=b1, b2=b2, eps=eps)
    if clip:
        optimiser = optax.chain(optax.clip_by_global_norm(clip), optimiser)
    return Optimizer(optimiser.init, optimiser.update, rate)


def build(settings: Mapping[str, Any]) -> Optimizer:
    """Returns the optimiser of the section `optimizer`."""
    return build_from('optimizer', make, settings)
