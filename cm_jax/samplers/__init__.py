"""Samplers: `sample(denoise, process, x_T, ts, keys) -> x0`, one file each, and how to name one.

`denoise(x, t)` is bound to its weights and labels; x_T [B,H,W,C] is noise at ts[0]; ts [n] are noise
levels in descending order; keys [B] are typed keys, one an example, for fresh noise, so that an
example does not depend on the batch that it is in.

A sampler is written `name` or `name@arguments` (`onestep`, `multistep@80,0.8`, `heun@18`): each file
has `parse(arguments, process) -> ts` and `evaluations(ts)`, the network evaluations it spends. One
whose rule has choices beside the levels also has `options(arguments)`, a tuple of words that its
`sample` takes after the keys. After any sampler may stand `+head<i>` (`euler@16+head1`), the head of a
network that has several, and then `+cfg<weight>` (`heun@18+cfg1.5`): classifier-free guidance, see
core/guidance.py.
"""

import importlib
import math
import pkgutil
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from cm_jax.core.guidance import guided
from cm_jax.core.process import Process
from cm_jax.errors import UserError, check_name
from cm_jax.types import Array, DenoiseFn, Params


class Sampler(NamedTuple):
    """`sample(denoise, x_T, keys) -> x0`, and what it is: its spelling, levels and cost.

    `sample` does not guide, nor choose a head: it is handed the denoiser that does.
    """

    spec: str
    name: str
    options: tuple[str, ...]  # the choices beside the levels; most samplers have none
    levels: tuple[float, ...]
    head: int  # of the network, 1 the first; 0 is the one that its objective samples with
    guidance: float  # weight of classifier-free guidance; 1 is none
    evaluations: int  # of the network, for one sample
    sample: Callable[..., Array]  # (denoise, x_T, keys, ts=levels)


def at_levels(sampler: Sampler, ts: Array) -> Sampler:
    """The same sampler at other levels ts, as many as it has. They may be traced: one compiled
    program then serves them all."""
    return sampler._replace(
        sample=lambda denoise, x_T, keys: sampler.sample(denoise, x_T, keys, ts)
    )


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


def parse_levels(text: str, process: Process, before: str) -> np.ndarray:
    """The levels written `before` + text, as 'multistep@' and '80,0.8'. Raises UserError on numbers
    that are none and where `check_levels` does."""
    try:
        levels = np.array([float(level) for level in text.split(',')])
    except ValueError:
        raise UserError(
            f'{before}{text}: write the levels as numbers in descending order, as '
            f'{before}{process.t_max:g},{process.t_max / 100:g}'
        ) from None
    check_levels(levels, process, before + text)
    return levels


def parse_steps(arguments: str, sampler: str) -> int:
    """The number n >= 1 in `sampler@n`."""
    if not arguments.isdecimal() or int(arguments) < 1:
        raise UserError(
            f'sampler {sampler}@{arguments}: write {sampler}@n with n >= 1 levels, as {sampler}@18'
        )
    return int(arguments)


def parse_guidance(spec: str) -> tuple[str, float]:
    """'heun@18+cfg1.5' -> ('heun@18', 1.5); the weight is 1 where none is written."""
    bare, *weights = spec.split('+cfg')
    if not weights:
        return bare, 1.0
    try:
        (weight,) = map(float, weights)
    except ValueError:
        weight = math.nan
    if not 0 <= weight < math.inf:
        raise UserError(
            f'guidance of {spec!r}: write +cfg and one weight >= 0 at the end, as {bare}+cfg1.5'
        )
    return bare, weight


def parse_head(spec: str) -> tuple[str, int]:
    """'euler@16+head2' -> ('euler@16', 2); the head is 0 where none is written."""
    bare, *heads = spec.split('+head')
    if not heads:
        return bare, 0
    if len(heads) > 1 or not heads[0].isdecimal() or int(heads[0]) < 1:
        raise UserError(f'head of {spec!r}: write +head and its number from 1, as {bare}+head1')
    return bare, int(heads[0])


def check_guidance(sampler: Sampler, num_classes: int) -> None:
    """Raises UserError if a network without classes is to be guided."""
    if sampler.guidance != 1 and not num_classes:
        raise UserError(
            f'sampler {sampler.spec!r} guides by class, and the network has no classes: it was trained '
            'with class_conditional = False'
        )


def names() -> list[str]:
    """The samplers that there are: the files of this folder whose names do not begin with _."""
    return [m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith('_')]


def build(spec: str, process: Process) -> Sampler:
    """The sampler written `spec`. Raises UserError on an unknown name, illegal levels, head or
    guidance."""
    bare, guidance = parse_guidance(spec)
    bare, head = parse_head(bare)
    name, _, arguments = bare.partition('@')
    check_name('sampler', name, names())
    module = importlib.import_module(f'cm_jax.samplers.{name}')
    levels = np.asarray(module.parse(arguments, process), np.float64)
    own = levels.astype(np.float32)
    options = module.options(arguments) if hasattr(module, 'options') else ()
    chosen = (options,) if options else ()

    def sample(
        denoise: Callable[[Array, Array], Array],
        x_T: Array,
        keys: Array,
        ts: np.ndarray | Array = own,
    ) -> Array:
        return module.sample(denoise, process, x_T, ts, keys, *chosen)

    evaluations = module.evaluations(levels) * (1 if guidance == 1 else 2)
    return Sampler(
        spec=spec,
        name=name,
        options=options,
        levels=tuple(levels.tolist()),
        head=head,
        guidance=guidance,
        evaluations=evaluations,
        sample=sample,
    )


class GenerativeModel(NamedTuple):
    """What samples are drawn from: a denoiser D with the shape and classes of its images.

    `num_classes` is 0 for an unconditional network. `heads` holds D of each head of a network that has
    several; `denoise` is then one of them.
    """

    denoise: DenoiseFn
    process: Process
    image_shape: tuple[int, int, int]
    num_classes: int
    heads: tuple[DenoiseFn, ...] = ()


def check_head(sampler: Sampler, heads: int) -> None:
    """Raises UserError if the sampler names a head that a network of so many heads does not have."""
    if sampler.head > heads:
        legal = f'+head1 to +head{heads}' if heads else 'no +head'
        raise UserError(
            f'sampler {sampler.spec!r}: the network has {heads or 1} head(s); legal: {legal}'
        )


class Start(NamedTuple):
    """Where samples start from: noise x_T [B,H,W,C], label [B] or None, keys [B] for fresh noise."""

    x_T: Array
    label: Array | None
    keys: Array


def start(model: GenerativeModel, seed: Array, indices: Array) -> Start:
    """Returns the starts of the samples number `indices` [B] of the stream `seed`.

    Noise and label of a sample depend on (seed, its index) alone. Sample i of a class-conditional
    network has class i modulo num_classes; label is None without classes.
    """
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(indices)
    draw, fresh = jax.vmap(jax.random.split, out_axes=1)(keys)
    noise = jax.vmap(lambda key: jax.random.normal(key, model.image_shape))(draw)
    label = indices % model.num_classes if model.num_classes else None
    return Start(x_T=model.process.prior_std * noise, label=label, keys=fresh)


def generate(
    sampler: Sampler, model: GenerativeModel, params: Params, seed: Array, indices: Array
) -> Array:
    """Returns the samples number `indices` [B] of the stream `seed`: [B,H,W,C]. To be jitted.

    A sample depends on (seed, its index) alone (see `start`), so the same samples come out whatever
    the batch size and the number of devices. Raises UserError where `check_guidance` and `check_head`
    do.
    """
    check_guidance(sampler, model.num_classes)
    check_head(sampler, len(model.heads))
    denoise = model.heads[sampler.head - 1] if sampler.head else model.denoise
    denoise = guided(denoise, sampler.guidance)
    x_T, label, fresh = start(model, seed, indices)
    return sampler.sample(lambda x, t: denoise(params, x, t, label), x_T, fresh)
