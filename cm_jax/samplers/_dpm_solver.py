"""DPM-Solver++ in its multistep form, of orders 1 to 3 (arXiv 2211.01095), for dpm1, dpm2 and dpm3.

Let lambda = log(a / t), which is half the log signal-to-noise ratio, h = lambda_{i+1} - lambda_i, and
D_i = D(x_i, t_i) the data prediction. A step solves the probability-flow ODE exactly for a D that is
the polynomial in lambda through the last `order` predictions (equation 8):

    x_{i+1} = (t_{i+1} / t_i) x_i + a_{i+1} (p1 D_i + p2 D' + p3 D'')
    p1 = 1 - e^{-h},   p2 = h - p1,   p3 = h^2/2 - p2      (times D, D', D'' in lambda)

D' and D'' are divided differences. Order 2 has h p1 / 2 in place of p2 (algorithm 2), which equals p2
up to terms of h^3. As in the paper's code, the first steps have a lower order, as there are not yet
enough predictions. D hardly changes at high noise, so this matters only if the first steps are long in
lambda: on equal steps of t, order 3 can measure as order 2. The formulas hold for both processes; on
rectified flow a = 1 - t.

A sampler is written `dpm3@n`. Choices that differ from the defaults follow after commas:
`dpm3@9,karras`, `dpm3@9,logsnr,lower_order_final`.

    n                  the number of steps and of network evaluations; there are n + 1 levels, from
                       t_max to t_min
    logsnr             equal steps of lambda (section 5.1). The default with variance exploding; with
                       rectified flow it needs t_max < 1
    karras             the grid of `core.noise.levels`. With variance exploding it is EDM's (arXiv
                       2206.00364, equation 5); with rectified flow it is equal steps of t (rho = 1),
                       and the default
    lower_order_final  the last two steps have at most order 2 and 1. The paper's code advises it for
                       n < 10; LCSC's code does not do it
    official           of dpm3 alone: the coefficients of the paper's code; see below

The result is x at t_min, where the network is not evaluated, as in the paper's code. If a(t_max) = 0,
as on rectified flow with t_max = 1, lambda is -inf there. The step from t_max is then Euler's, and no
divided difference uses the prediction at t_max.

For order 3 the paper's code, and the copies of it that LCSC and CMT have, take half of the D'' term
above. On Gaussian data, where the solution is known in closed form, that has order 2 as the steps get
small. The term here is that of the expansion, and has order 3 (tests/samplers/test_dpm_solver.py);
`dpm3@n,official` is the paper's code. Orders 1 and 2 are the same in both.
"""

import functools
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from cm_jax.core import noise
from cm_jax.core.ode import loop
from cm_jax.core.process import Process, expand
from cm_jax.errors import UserError
from cm_jax.samplers import parse_steps
from cm_jax.types import Array

SPACINGS = ('logsnr', 'karras')
FINAL, OFFICIAL = 'lower_order_final', 'official'


def choices(sampler: str) -> tuple[str, ...]:
    """Returns the words, beside a spacing, that may stand in the arguments of a sampler."""
    return (FINAL, OFFICIAL) if sampler == 'dpm3' else (FINAL,)


def parse(arguments: str, process: Process, sampler: str) -> np.ndarray:
    """Returns the n + 1 levels of `sampler@arguments`, from t_max down to t_min.

    Raises UserError on arguments that the module's table does not have, and as `logsnr_levels` does.
    """
    n, spacing = parse_words(arguments, process, sampler, choices(sampler))
    if spacing == 'karras':
        return np.asarray(noise.levels(process, n + 1), np.float64)
    return logsnr_levels(process, n + 1, f'{sampler}@{arguments}')


def parse_words(
    arguments: str, process: Process, sampler: str, others: tuple[str, ...] = ()
) -> tuple[int, str]:
    """Returns the number n and the spacing of the levels of `sampler@arguments`.

    Raises UserError unless the words behind n are at most one of SPACINGS and those of `others`, each
    once.
    """
    count, *words = arguments.split(',')
    n = parse_steps(count, sampler)
    spacings = [word for word in words if word in SPACINGS]
    if len(set(words)) < len(words) or len(spacings) > 1 or set(words) - {*SPACINGS, *others}:
        legal = ''.join(f' and {word}' for word in others)
        raise UserError(
            f'sampler {sampler}@{arguments}: write {sampler}@n, with one of {", ".join(SPACINGS)}'
            f'{legal} behind commas, as {sampler}@9,{",".join(("karras", *others))}'
        )
    return n, spacings[0] if spacings else 'karras' if process.name == 'rf' else 'logsnr'


def logsnr_levels(process: Process, n: int, spec: str) -> np.ndarray:
    """Returns n levels from t_max to t_min, equally far apart in log(a / t): [n] float64.

    Raises UserError if a(t_max) is 0; the message names the sampler by `spec`.
    """
    ends = np.array([process.t_max, process.t_min])
    signal = 1 - ends if process.name == 'rf' else np.ones(2)
    if signal[0] <= 0:
        raise UserError(
            f'sampler {spec}: the signal-to-noise ratio at t_max = {process.t_max:g} is 0, so that '
            'equal steps of its logarithm are impossible: write karras, or choose a t_max below 1'
        )
    first, last = (ends / signal).tolist()
    ratio = np.geomspace(first, last, n)  # t / a
    levels = ratio / (1 + ratio) if process.name == 'rf' else ratio
    levels[[0, -1]] = ends
    return levels


def options(arguments: str) -> tuple[str, ...]:
    """Returns the choices in the arguments beside the levels, as ('lower_order_final',) or ()."""
    return tuple(word for word in (FINAL, OFFICIAL) if word in arguments.split(','))


def evaluations(ts: np.ndarray) -> int:
    return len(ts) - 1


def weights(
    process: Process,
    ts: Array,
    order: int,
    lower_order_final: bool = False,
    official: bool = False,
) -> Array:
    """Returns the weights [n, 3] of D_i, D_{i-1} and D_{i-2} in the n steps between ts [n + 1]."""
    n = len(ts) - 1
    steps = np.arange(n)
    used = np.minimum(steps + 1, order)  # the number of predictions that each step uses
    if lower_order_final:
        used = np.minimum(used, n - steps)
    signal = process.signal(ts)
    h = jnp.diff(jnp.log(signal) - jnp.log(ts))  # the first is inf where a(t_max) = 0
    last, earlier = jnp.roll(h, 1), jnp.roll(h, 2)  # the two steps before each step
    p1 = -jnp.expm1(-h)
    p2 = h - p1
    p3 = h**2 / 2 - p2
    # The term of p2 is p2 (D_i - D_{i-1}) / last. Order 3 adds `bend` times the difference between
    # that slope and the slope before it. The slope over an infinite step is 0.
    curvature = p3 if official else 2 * p3
    bend = jnp.where(used == 3, (last * p2 + curvature) / (last + earlier), 0.0)
    bend = jnp.where(jnp.isfinite(bend), bend, 0.0)
    slope = jnp.where(used == 2, h * p1 / 2, p2) + bend
    slope = jnp.where(used > 1, slope, 0.0) / last
    before = bend / earlier
    return signal[1:, None] * jnp.stack([p1 + slope, -slope - before, before], axis=1)


def dpm_solver(
    denoise: Callable[[Array, Array], Array],
    process: Process,
    x_T: Array,
    ts: np.ndarray | Array,
    keys: Array,
    unroll: bool = False,
    chosen: tuple[str, ...] = (),
    *,
    order: int,
) -> Array:
    """Returns x at ts[-1] on the path from x_T at ts[0]; `chosen` are the words of `options`."""
    del keys  # the sampler is deterministic
    levels = jnp.asarray(ts, x_T.dtype)
    table = weights(process, levels, order, FINAL in chosen, OFFICIAL in chosen).astype(x_T.dtype)
    past = jnp.zeros((table.shape[1], *x_T.shape), x_T.dtype)  # predictions, the newest first

    def step(
        carry: tuple[Array, Array], settings: tuple[Array, ...]
    ) -> tuple[tuple[Array, Array], None]:
        x, past = carry
        t, ratio, row = settings
        prediction = denoise(x, jnp.broadcast_to(t, x.shape[:1]))
        past = jnp.concatenate([prediction[None], past[:-1]])
        return (ratio * x + jnp.sum(expand(row, past) * past, axis=0), past), None

    steps = (levels[:-1], levels[1:] / levels[:-1], table)
    return loop(step, (x_T, past), steps, unroll)[0]


def solver(order: int) -> tuple[Callable, Callable]:
    """Returns `parse` and `sample` of the sampler of this order: dpm1, dpm2 or dpm3."""
    parse_named = functools.partial(parse, sampler=f'dpm{order}')
    return parse_named, functools.partial(dpm_solver, order=order)
