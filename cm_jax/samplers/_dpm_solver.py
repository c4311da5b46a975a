"""DPM-Solver++, multistep, orders 1 to 3 (arXiv 2211.01095): what dpm1, dpm2 and dpm3 share.

With lambda = log(a / t), half the log signal-to-noise ratio, h = lambda_{i+1} - lambda_i and the data
prediction D_i = D(x_i, t_i), one step is the exact solution of the probability-flow ODE for a D that is
a polynomial in lambda through the last `order` predictions (equation 8):

    x_{i+1} = (t_{i+1} / t_i) x_i + a_{i+1} (p1 D_i + p2 D' + p3 D'')
    p1 = 1 - e^{-h},   p2 = h - p1,   p3 = h^2/2 - p2      (times D, D', D'' in lambda)

D' and D'' are divided differences. Order 2 has h p1 / 2 in place of p2 (algorithm 2), which is p2 up to
h^3. As in the paper's code, the first steps have the order that there are predictions for. D hardly
changes at high noise, so that this shows only where the first steps are long in lambda: on equal
steps of t, order 3 can measure as 2. a and t may be of either process: on rectified flow a = 1 - t.

Written `dpm3@n`, with what differs from its defaults behind a comma: `dpm3@9,karras`,
`dpm3@9,logsnr,lower_order_final`.

    n                  steps = network evaluations, between n + 1 levels from t_max to t_min
    logsnr             equal steps of lambda (section 5.1); the default with variance exploding.
                       Rectified flow has it where t_max < 1
    karras             the grid of `core.noise.levels`: EDM's (arXiv 2206.00364, equation 5) and, with
                       rho = 1 on rectified flow, equal steps of t; the default there
    lower_order_final  the last steps have orders 2 and 1, which the paper's code advises for n < 10;
                       LCSC's code does not do it

The result is x at t_min, as in the paper's code: nothing is evaluated there. Where a(t_max) = 0, as on
rectified flow with t_max = 1, lambda is -inf there: the step from it is Euler's, and no divided
difference reaches back to it.

The paper's code for order 3 has half of the D'' term above, and so have its copies: by the closed form
of Gaussian data it has order 2 as the steps get small. Here it is what the expansion says, of order 3
(tests/test_ode_closed_form.py).
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from cm_jax.core import noise
from cm_jax.core.process import Process, expand
from cm_jax.errors import UserError
from cm_jax.samplers import parse_steps
from cm_jax.types import Array

SPACINGS = ('logsnr', 'karras')
FINAL = 'lower_order_final'


def parse(arguments: str, process: Process, sampler: str) -> np.ndarray:
    """The n + 1 levels of `sampler@arguments`, from t_max down to t_min."""
    count, *words = arguments.split(',')
    n = parse_steps(count, sampler)
    spacings = [word for word in words if word in SPACINGS]
    if len(set(words)) < len(words) or len(spacings) > 1 or set(words) - {*SPACINGS, FINAL}:
        raise UserError(
            f'sampler {sampler}@{arguments}: write {sampler}@n, with one of {", ".join(SPACINGS)} '
            f'and {FINAL} behind commas, as {sampler}@9,karras,{FINAL}'
        )
    spacing = spacings[0] if spacings else 'karras' if process.name == 'rf' else 'logsnr'
    if spacing == 'karras':
        return np.asarray(noise.levels(process, n + 1), np.float64)
    return logsnr_levels(process, n + 1, f'{sampler}@{arguments}')


def logsnr_levels(process: Process, n: int, spec: str) -> np.ndarray:
    """n levels from t_max to t_min, equally far apart in log(a / t). Returns [n], float64.

    Raises UserError where a(t_max) is 0.
    """
    ends = np.array([process.t_max, process.t_min])
    signal = 1 - ends if process.name == 'rf' else np.ones(2)
    if signal[0] <= 0:
        raise UserError(
            f'sampler {spec}: the signal-to-noise ratio at t_max = {process.t_max:g} is 0, and its '
            'logarithm has no equal steps from there: write karras, or choose a t_max below 1'
        )
    ratio = np.geomspace(*(ends / signal), n)  # t / a
    levels = ratio / (1 + ratio) if process.name == 'rf' else ratio
    levels[[0, -1]] = ends
    return levels


def options(arguments: str) -> tuple[str, ...]:
    """What a spec says beside its levels: ('lower_order_final',) or ()."""
    return (FINAL,) if FINAL in arguments.split(',') else ()


def evaluations(ts: np.ndarray) -> int:
    return len(ts) - 1


def weights(process: Process, ts: Array, order: int, lower_order_final: bool = False) -> Array:
    """Weights [n, 3] of D_i, D_{i-1} and D_{i-2} in the n steps between the levels ts [n + 1]."""
    n = len(ts) - 1
    steps = np.arange(n)
    used = np.minimum(steps + 1, order)  # predictions in each step
    if lower_order_final:
        used = np.minimum(used, n - steps)
    signal = process.signal(ts)
    h = jnp.diff(jnp.log(signal) - jnp.log(ts))  # the first is inf where a(t_max) = 0
    last, earlier = jnp.roll(h, 1), jnp.roll(h, 2)  # the steps before each
    p1 = -jnp.expm1(-h)
    p2 = h - p1
    p3 = h**2 / 2 - p2
    # In divided differences: p2 (D_i - D_{i-1}) / last, and, of order 3, `bend` of the difference
    # between that slope and the one before it. An infinite step has slope 0.
    bend = jnp.where(used == 3, (last * p2 + 2 * p3) / (last + earlier), 0.0)
    bend = jnp.where(jnp.isfinite(bend), bend, 0.0)
    slope = jnp.where(used == 2, h * p1 / 2, p2) + bend
    slope = jnp.where(used > 1, slope, 0.0) / last
    before = bend / earlier
    return signal[1:, None] * jnp.stack([p1 + slope, -slope - before, before], axis=1)


def dpm_solver(
    denoise: Callable[[Array, Array], Array],
    process: Process,
    x_T: Array,
    ts: np.ndarray,
    keys: Array,
    chosen: tuple[str, ...] = (),
    *,
    order: int,
) -> Array:
    """x at ts[-1] of the path through x_T at ts[0]; `chosen` are the words of `options`."""
    del keys  # deterministic
    ts = jnp.asarray(ts, x_T.dtype)
    table = weights(process, ts, order, FINAL in chosen).astype(x_T.dtype)
    past = jnp.zeros((table.shape[1], *x_T.shape), x_T.dtype)  # predictions, the newest first

    def step(carry: tuple[Array, Array], at: tuple[Array, ...]) -> tuple[tuple[Array, Array], None]:
        x, past = carry
        t, ratio, row = at
        now = denoise(x, jnp.broadcast_to(t, x.shape[:1]))
        past = jnp.concatenate([now[None], past[:-1]])
        return (ratio * x + jnp.sum(expand(row, past) * past, axis=0), past), None

    return jax.lax.scan(step, (x_T, past), (ts[:-1], ts[1:] / ts[:-1], table))[0][0]


def solver(order: int) -> tuple[Callable, Callable]:
    """`parse` and `sample` of dpm1, dpm2 and dpm3."""
    named = functools.partial(parse, sampler=f'dpm{order}')
    return named, functools.partial(dpm_solver, order=order)
