"""DPM-Solver++ in its single-step form, of orders 2 and 3 (arXiv 2211.01095), for dpm2s and dpm3s.

With lambda, h and D as in samplers/_dpm_solver.py, a step from s to t evaluates the network at s and at
one or two levels between, at lambda_s + r_1 h and lambda_s + r_2 h:

    order 2   x_1 = (t_1/s) x - a_1 expm1(-r_1 h) D_s
              x_t = (t/s) x - a_t expm1(-h) (D_s + (D_1 - D_s) / (2 r_1))    (algorithm 1)
    order 3   x_2 = (t_2/s) x - a_2 expm1(-r_2 h) D_s + (r_2/r_1) a_2 q(r_2 h) (D_1 - D_s)
              x_t = (t/s) x - a_t expm1(-h) D_s + a_t q(h) (D_2 - D_s) / r_2,
              q(h) = expm1(-h) / h + 1

as in the paper's code, with its solver type `dpmsolver`. Written `dpm2s@n` or `dpm3s@n`, it takes n
evaluations: as many steps of the order as fit, and lower orders for what is left, as the code does
(n = 9 with order 3 are two steps of order 3, one of order 2 and one of order 1). Behind a comma may
stand `logsnr` or `karras`, as with dpm3. The steps of `logsnr` are equal in lambda, whatever their
order, and the levels inside a step are equally spaced: r_1 = 1/2, or r_1 = 1/3 and r_2 = 2/3; `karras`
takes all n + 1 levels from one grid. The result is x at t_min. There must be a signal at t_max:
rectified flow needs t_max < 1.
"""

import functools
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from cm_jax.core import noise
from cm_jax.core.ode import loop
from cm_jax.core.process import Process
from cm_jax.errors import UserError
from cm_jax.samplers import _dpm_solver
from cm_jax.types import Array

Denoise = Callable[[Array, Array], Array]


def orders(n: int, order: int) -> list[int]:
    """Returns the orders of the steps, whose sum is n: `order` as often as the paper's code has it."""
    whole, rest = divmod(n, order)
    if order == 3 and rest == 0:  # the code ends with lower orders
        return [3] * (whole - 1) + [2, 1]
    return [order] * whole + ([rest] if rest else [])


def parse(arguments: str, process: Process, order: int) -> np.ndarray:
    """Returns the n + 1 levels from t_max to t_min, those inside the steps among them.

    Raises UserError on wrong arguments, and if there is no signal at t_max.
    """
    sampler = f'dpm{order}s'
    n, spacing = _dpm_solver.parse_words(arguments, process, sampler)
    if process.name == 'rf' and process.t_max >= 1:
        raise UserError(
            f'sampler {sampler}@{arguments} needs a signal at t_max, which is 0 at t_max = '
            f'{process.t_max:g}: choose a t_max below 1, or dpm{order}'
        )
    if spacing == 'karras':
        return np.asarray(noise.levels(process, n + 1), np.float64)
    in_steps = orders(n, order)
    ends = _dpm_solver.logsnr_levels(process, len(in_steps) + 1, f'{sampler}@{arguments}')
    parts = np.concatenate([i + np.arange(k) / k for i, k in enumerate(in_steps)])
    ratio = ends / (1 - ends) if process.name == 'rf' else ends  # t / a
    inside = np.exp(np.interp(parts, np.arange(len(ends)), np.log(ratio)))
    levels = np.append(inside / (1 + inside) if process.name == 'rf' else inside, ends[-1])
    levels[0] = ends[0]
    return levels


def step(denoise: Denoise, process: Process, x: Array, ts: Array) -> Array:
    """Returns x at ts[-1] by one step from ts[0] of the order len(ts) - 1; ts [2], [3] or [4]."""
    signal, order = process.signal(ts), len(ts) - 1
    lambdas = jnp.log(signal) - jnp.log(ts)
    h = lambdas - lambdas[0]  # h[-1] is the step; h[1:-1] are r_1 h and r_2 h
    p, q = jnp.expm1(-h), jnp.expm1(-h[1:]) / h[1:] + 1
    predict = lambda x, i: denoise(x, jnp.full(x.shape[0], ts[i], x.dtype))  # noqa: E731
    first = predict(x, 0)
    to = lambda i: ts[i] / ts[0] * x - signal[i] * p[i] * first  # noqa: E731
    if order == 1:
        return to(1)
    change = predict(to(1), 1) - first
    if order == 2:
        return to(2) - signal[2] * p[2] * change * h[2] / (2 * h[1])
    change = predict(to(2) + h[2] / h[1] * signal[2] * q[1] * change, 2) - first
    return to(3) + h[3] / h[2] * signal[3] * q[2] * change


def sample(
    denoise: Denoise,
    process: Process,
    x_T: Array,
    ts: np.ndarray | Array,
    keys: Array,
    unroll: bool = False,
    *,
    order: int,
) -> Array:
    """Returns x at ts[-1] on the path from x_T at ts[0]; ts are as many levels as `parse` gives."""
    del keys  # the sampler is deterministic
    levels = jnp.asarray(ts, x_T.dtype)
    in_steps = orders(len(levels) - 1, order)
    whole = in_steps.count(order)
    starts = order * np.arange(whole)[:, None] + np.arange(order + 1)
    body = lambda x, ts: (step(denoise, process, x, ts), None)  # noqa: E731
    x, i = loop(body, x_T, levels[starts], unroll), order * whole
    for lower in in_steps[whole:]:
        x, i = step(denoise, process, x, levels[i : i + lower + 1]), i + lower
    return x


def solver(order: int) -> tuple[Callable, Callable]:
    """Returns `parse` and `sample` of the sampler of this order: dpm2s or dpm3s."""
    return functools.partial(parse, order=order), functools.partial(sample, order=order)
