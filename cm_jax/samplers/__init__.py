"""Samplers: `sample(denoise, process, x_T, ts, keys) -> x0`, one file each, and how to name one.

`denoise(x, t)` is bound to its weights and labels; x_T [B,H,W,C] is noise at ts[0]; ts [n] are noise
levels in descending order; keys [B] are typed keys, one an example, for fresh noise, so that an
example does not depend on the batch that it is in.

A sampler is written `name` or `name@arguments` (`onestep`, `multistep@80,0.8`, `heun@18`): each file
has `parse(arguments, process) -> ts` and `evaluations(ts)`, the network evaluations it spends.
"""

import importlib
import pkgutil
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from cm_jax.core.process import Process
from cm_jax.errors import UserError, check_name
from cm_jax.types import Array


class Sampler(NamedTuple):
    """`sample(denoise, x_T, keys) -> x0`, and what it is: its spelling, levels and cost."""

    spec: str
    levels: tuple[float, ...]
    evaluations: int
    sample: Callable[[Callable[[Array, Array], Array], Array, Array], Array]


def check_levels(levels: np.ndarray, process: Process, spec: str) -> None:
    """Raises UserError unless the levels that a user wrote start at t_max, where the noise that
    sampling starts from is, and descend strictly, not below t_min."""
    low, high = process.t_min, process.t_max
    shown = ', '.join(f'{level:g}' for level in levels)
    if not np.all((levels >= low * (1 - 1e-6)) & (levels <= high * (1 + 1e-6))):
        raise UserError(f'noise levels of {spec!r} must lie in [{low:g}, {high:g}], got {shown}')
    if np.any(np.diff(levels) >= 0):
        raise UserError(f'noise levels of {spec!r} must descend strictly, got {shown}')
    if levels[0] < high * (1 - 1e-6):
        raise UserError(
            f'noise levels of {spec!r} must start at t_max = {high:g}, where the noise is, got {shown}'
        )


def parse_steps(arguments: str, sampler: str) -> int:
    """The number n >= 1 in `sampler@n`."""
    if not arguments.isdecimal() or int(arguments) < 1:
        raise UserError(
            f'sampler {sampler}@{arguments}: write {sampler}@n with n >= 1 levels, as {sampler}@18'
        )
    return int(arguments)


def names() -> list[str]:
    """The samplers that there are: the files of this folder."""
    return [m.name for m in pkgutil.iter_modules(__path__)]


def build(spec: str, process: Process) -> Sampler:
    """The sampler written `spec`. Raises UserError on an unknown name or illegal levels."""
    name, _, arguments = spec.partition('@')
    check_name('sampler', name, names())
    module = importlib.import_module(f'cm_jax.samplers.{name}')
    ts = np.asarray(module.parse(arguments, process), np.float64)

    def sample(denoise: Callable[[Array, Array], Array], x_T: Array, keys: Array) -> Array:
        return module.sample(denoise, process, x_T, ts.astype(np.float32), keys)

    return Sampler(spec, tuple(ts.tolist()), module.evaluations(ts), sample)


def generate(
    sampler: Sampler,
    denoise: Callable[[Array, Array, Array | None], Array],
    prior_std: float,
    image_shape: tuple[int, int, int],
    num_classes: int,
    seed: Array,
    indices: Array,
) -> Array:
    """The samples number `indices` [B] of the stream `seed`: [B,H,W,C]. To be jitted.

    Noise and label depend on (seed, index) alone, so the same samples come out whatever the batch
    size and the number of devices. Sample i of a class-conditional network has class i modulo
    num_classes. `denoise(x, t, label)` is bound to its weights; label is None without classes.
    """
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(indices)
    draw, fresh = jax.vmap(jax.random.split, out_axes=1)(keys)
    x_T = prior_std * jax.vmap(lambda key: jax.random.normal(key, image_shape))(draw)
    label = indices % num_classes if num_classes else None
    return sampler.sample(lambda x, t: denoise(x, t, label), x_T, fresh)
