"""EDM's stochastic sampler (arXiv 2206.00364, algorithm 2): Heun's steps, each after some fresh noise.

A step from t_i to t_{i+1} first raises the noise of x from t_i to t_hat, then goes down from there:

    t_hat = (1 + gamma) t_i,   x_hat = x + sqrt(t_hat^2 - t_i^2) S_noise z,   z ~ N(0, I)
    gamma = min(S_churn / n, sqrt(2) - 1)  if S_min <= t_i <= S_max,  else 0

It is written `churn@n,S_churn=...` with the settings that differ from S_churn = 0, S_min = 0,
S_max = inf and S_noise = 1. With S_churn = 0 it is `heun@n`, whose levels and 2n - 1 evaluations it
has; the last step, to level 0, is an Euler step. The settings of the paper (table 5):

    network                                  written
    CIFAR-10, VP (of Song et al.)            churn@n,S_churn=30,S_min=0.01,S_max=1,S_noise=1.007
    CIFAR-10, VE (of Song et al.)            churn@n,S_churn=80,S_min=0.05,S_max=1,S_noise=1.007
    ImageNet-64, of Dhariwal & Nichol        churn@n,S_churn=80,S_min=0.05,S_max=50,S_noise=1.003
    ImageNet-64, the paper's own             churn@256,S_churn=40,S_min=0.05,S_max=50,S_noise=1.003

The paper's own networks on CIFAR-10 are sampled without noise, by heun@18. It is of variance exploding
alone. The noise of an example comes from its own key.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cm_jax.core import ode
from cm_jax.core.noise import sampling_levels
from cm_jax.core.process import Process
from cm_jax.errors import UserError
from cm_jax.samplers import heun, parse_steps
from cm_jax.types import Array


class Churn(NamedTuple):
    """The settings of algorithm 2, by the paper's names."""

    S_churn: float = 0.0  # how much noise all steps add together, >= 0
    S_min: float = 0.0  # from this level on, >= 0
    S_max: float = math.inf  # up to this level, >= S_min
    S_noise: float = 1.0  # the standard deviation of the noise, > 0


NO_NOISE = Churn()


def options(arguments: str) -> Churn:
    """Returns the settings in the arguments behind the number of steps.

    Raises UserError on a setting that does not exist, is written twice, or is out of its range.
    """
    _, *pairs = arguments.split(',')
    settings: dict[str, float] = {}
    try:
        for pair in pairs:
            name, _, value = pair.partition('=')
            if name in settings:
                raise ValueError
            settings[name] = float(value)
        chosen = Churn(**settings)
    except (TypeError, ValueError):
        raise _refusal(arguments) from None
    finite = math.isfinite(chosen.S_churn) and math.isfinite(chosen.S_noise)
    if not (finite and chosen.S_churn >= 0 <= chosen.S_min <= chosen.S_max and chosen.S_noise > 0):
        raise _refusal(arguments)
    return chosen


def _refusal(arguments: str) -> UserError:
    return UserError(
        f'sampler churn@{arguments}: write churn@n, and behind commas S_churn >= 0, '
        '0 <= S_min <= S_max and S_noise > 0, each once, as '
        'churn@256,S_churn=40,S_min=0.05,S_max=50,S_noise=1.003'
    )


def parse(arguments: str, process: Process) -> np.ndarray:
    if process.name != 've':
        raise UserError(
            f'sampler churn raises the noise of process ve; this one is {process.name!r}: use heun'
        )
    return sampling_levels(process, parse_steps(arguments.partition(',')[0], 'churn'))


def sample(
    denoise: Callable[[Array, Array], Array],
    process: Process,
    x_T: Array,
    ts: np.ndarray | Array,
    keys: Array,
    unroll: bool = False,
    churn: Churn = NO_NOISE,
) -> Array:
    """Returns x at level 0, with the noise that `churn` says."""
    del process
    batch, shape = x_T.shape[0], x_T.shape[1:]
    ts, velocity = jnp.asarray(ts, x_T.dtype), ode.pf_ode(denoise)
    n = len(ts) - 1
    most = min(churn.S_churn / n, math.sqrt(2) - 1)
    is_raised = (ts[:-1] >= churn.S_min) & (ts[:-1] <= churn.S_max)
    raised = ts[:-1] * (1 + jnp.where(is_raised, most, 0.0).astype(ts.dtype))  # t_hat of each step

    def add_noise(x: Array, i: Array, t: Array, t_hat: Array) -> tuple[Array, Array]:
        """Returns x_hat, and its level as [B]."""
        std = churn.S_noise * jnp.sqrt(jnp.maximum(t_hat**2 - t**2, 0))
        t_hat = jnp.full(batch, t_hat, x.dtype)
        if not churn.S_churn:
            return x, t_hat
        draw = lambda key: jax.random.normal(jax.random.fold_in(key, i), shape, x.dtype)  # noqa: E731
        return x + std * jax.vmap(draw)(keys), t_hat

    def step(x: Array, of_step: tuple[Array, ...]) -> tuple[Array, None]:
        i, t, t_hat, s = of_step
        x_hat, t_hat = add_noise(x, i, t, t_hat)
        return ode.heun(velocity, x_hat, t_hat, jnp.full(batch, s, x.dtype)), None

    steps = (jnp.arange(n), ts[:-1], raised, ts[1:])
    x = ode.loop(step, x_T, jax.tree.map(lambda of_step: of_step[:-1], steps), unroll)
    i, t, t_hat, _ = (of_step[-1] for of_step in steps)
    return denoise(*add_noise(x, i, t, t_hat))


evaluations = heun.evaluations
