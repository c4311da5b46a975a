"""Samplers, which turn noise into images, and the text that names one.

Each sampler is a file of this folder that has these functions:

    sample(denoise, process, x_T, ts, keys, unroll=False) -> x0
        `denoise(x, t)` is bound to its weights and labels. x_T [B,H,W,C] is noise at ts[0], and ts
        [n] are noise levels in descending order. keys [B] are typed keys for fresh noise, one for
        each example, so that an example does not depend on the batch that it is in. With `unroll`
        the program has no loop: it calls `denoise` once for each evaluation.
    parse(arguments, process) -> ts
        The levels that the arguments mean; see below.
    evaluations(ts) -> int
        The number of network evaluations for one sample.
    options(arguments) -> tuple of words or numbers
        Only if a sampler has choices beside the levels; its `sample` takes the tuple after `unroll`.

If a file sets JUMPS = True, its `sample` takes a flow map `jump(x, t, r)` in place of a denoiser.

A sampler is written `name` or `name@arguments`: `onestep`, `multistep@80,0.8`, `heun@18`. With `clip`
as the last argument, as in `heun@40,clip`, every estimate of x0 is clipped to [-1, 1], as in the code
of Consistency Models and of Progressive Distillation. Two things may follow, in this order:
`+head<i>` (`euler@16+head1`) names the head of a network that has several, and one of two kinds of
guidance, see core/guidance.py: `+cfg<weight>` (`heun@18+cfg1.5`) is classifier-free, and
`+auto<weight>=RUN` (`heun@32+auto1.7=runs/small`) is by the weights of another run; a step of it and an
average may follow, as in `+auto1.7=runs/small,8192,0.999`.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cm_jax.core.guidance import autoguided, guided
from cm_jax.core.process import Process
from cm_jax.errors import UserError, check_name, shown
from cm_jax.samplers._suffixes import parse_autoguidance as parse_autoguidance
from cm_jax.samplers._suffixes import parse_clip, parse_guidance, parse_head, whole_number
from cm_jax.samplers._suffixes import parse_guide as parse_guide
from cm_jax.types import Array, DenoiseFn, JumpFn, Key, Params

MAX_STEPS = 10_000  # of a sampler, and the levels of a grid that are chosen from


class Sampler(NamedTuple):
    """A sampler as a user wrote it: its function, levels and cost.

    `sample` neither guides nor chooses a head: its caller passes a denoiser that does.
    """

    spec: str  # the whole text, 'heun@18+cfg1.5'
    name: str  # the file of the sampler, 'heun'
    options: tuple  # the choices beside the levels; most samplers have none
    levels: tuple[float, ...]
    clips: bool  # whether every estimate of x0 is clipped to [-1, 1]
    head: int  # the head of the network, from 1; 0 is the head that its objective samples with
    guidance: float  # the weight of classifier-free guidance; 1 is no guidance
    autoguidance: float  # the weight of the guidance by `guide`; 1 is none
    guide: str  # whose weights guide, 'RUN,step,average' or a beginning of it; '' is nobody
    evaluations: int  # the number of network evaluations for one sample
    jumps: bool  # whether it calls a flow map, jump(x, t, r), and not a denoiser
    sample: Callable[..., Array]  # sample(denoise, x_T, keys, ts=levels, unroll=False) -> x0


def at_levels(sampler: Sampler, ts: Array) -> Sampler:
    """Returns the sampler with other levels ts, as many as it has.

    The levels may be traced, so one compiled program serves for many of them. The fields `levels` and
    `spec` stay as they are.
    """
    return sampler._replace(
        sample=lambda denoise, x_T, keys, unroll=False: sampler.sample(
            denoise, x_T, keys, ts, unroll
        )
    )


def check_levels(levels: np.ndarray, process: Process, spec: str) -> None:
    """Raises UserError unless the levels of a user start at t_max and descend strictly to >= t_min.

    They must start at t_max as that is the level of the noise that sampling starts from.
    """
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
    """Returns the levels in `text`, as '80,0.8'.

    `before` is what a user wrote before them, as 'multistep@', for messages. Raises UserError if the
    text is not numbers separated by commas, and as `check_levels` does.
    """
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
    """Returns the number n of `sampler@n`. Raises UserError unless it is one from 1 to MAX_STEPS."""
    steps = whole_number(arguments)
    if not steps or steps > MAX_STEPS:
        raise UserError(
            f'sampler {sampler}@{shown(arguments)}: write {sampler}@n with n >= 1 steps, at most '
            f'{MAX_STEPS:,}, as {sampler}@18'
        )
    return steps


def clipped(denoise: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    """Returns the denoiser with its estimates of x0 clipped to [-1, 1]."""
    return lambda x, t: jnp.clip(denoise(x, t), -1, 1)


def names() -> list[str]:
    """Returns the names of all samplers: the files of this folder that do not begin with _."""
    files = pkgutil.iter_modules(__path__)
    return [file.name for file in files if not file.name.startswith('_')]


def build(spec: str, process: Process) -> Sampler:
    """Returns the sampler that the text `spec` names.

    Raises UserError on an unknown name, and on illegal levels, head or guidance.
    """
    bare, autoguidance, guide = parse_autoguidance(spec)
    bare, guidance = parse_guidance(bare)
    if guide and guidance != 1:
        raise UserError(f'sampler {spec!r} has two kinds of guidance: write one of +cfg and +auto')
    bare, head = parse_head(bare)
    name, _, arguments = bare.partition('@')
    check_name('sampler', name, names())
    module = importlib.import_module(f'cm_jax.samplers.{name}')
    arguments, clips = parse_clip(arguments)
    levels = np.asarray(module.parse(arguments, process), np.float64)
    float32_levels = levels.astype(np.float32)
    options = module.options(arguments) if hasattr(module, 'options') else ()
    options_argument = (options,) if options else ()
    jumps = getattr(module, 'JUMPS', False)
    if jumps and (clips or guide):
        raise UserError(
            f'sampler {spec!r}: {name} takes neither clip nor +auto, as it makes no estimate of x0 '
            'between its levels'
        )

    def sample(
        denoise: Callable[[Array, Array], Array],
        x_T: Array,
        keys: Array,
        ts: np.ndarray | Array = float32_levels,
        unroll: bool = False,
    ) -> Array:
        seen = clipped(denoise) if clips else denoise
        return module.sample(seen, process, x_T, ts, keys, unroll, *options_argument)

    evaluations = module.evaluations(levels) * (1 if guidance == autoguidance == 1 else 2)
    return Sampler(
        spec=spec,
        name=name,
        options=options,
        levels=tuple(levels.tolist()),
        clips=clips,
        head=head,
        guidance=guidance,
        autoguidance=autoguidance,
        guide=guide,
        evaluations=evaluations,
        jumps=jumps,
        sample=sample,
    )


class Guide(NamedTuple):
    """Another network that guides samplers (`+auto`), on the same images, classes and process."""

    denoise: DenoiseFn
    load: Callable[[], Params]  # reads its weights


class GenerativeModel(NamedTuple):
    """A denoiser to draw samples from, with the shape and the classes of its images."""

    denoise: DenoiseFn
    process: Process
    image_shape: tuple[int, int, int]  # (H, W, C)
    num_classes: int  # 0 for an unconditional network
    heads: tuple[DenoiseFn, ...] = ()  # of a network with several heads; `denoise` is one of them
    guides: Mapping[str, Guide] = {}  # those that were opened, by `Sampler.guide`
    guidable: bool = True  # whether it also learnt from images without their class
    jump: JumpFn | None = None  # the flow map of a method of two times


def check_guidance(sampler: Sampler, model: GenerativeModel) -> None:
    """Raises UserError if the sampler guides by class and the network does not know what that needs.

    That is an image with its class, and an image without.
    """
    if sampler.guidance == 1:
        return
    if not model.num_classes:
        raise UserError(
            f'sampler {sampler.spec!r} guides by class, and the network has no classes: it was trained '
            'with class_conditional = False'
        )
    if not model.guidable:
        raise UserError(
            f'sampler {sampler.spec!r} guides by class, and the network never learnt from an image '
            'without its class: it was trained with model.label_dropout = 0, and not, say, 0.1; sample '
            'and evaluate guide it nevertheless with --unsupported'
        )


def check_head(sampler: Sampler, heads: int) -> None:
    """Raises UserError if the sampler names a head and the network, of `heads` heads, lacks it."""
    if sampler.head > heads:
        legal = f'+head1 to +head{heads}' if heads else 'no +head'
        raise UserError(
            f'sampler {sampler.spec!r}: the network has {heads or 1} head(s); legal: {legal}'
        )


def check_jump(sampler: Sampler, jump: JumpFn | None) -> None:
    """Raises UserError if the sampler walks with a flow map and the method has none."""
    if sampler.jumps and jump is None:
        raise UserError(
            f'sampler {sampler.spec!r} needs a method that learns a flow map, such as mean_flow, and '
            'the objective of this run learns none'
        )


def jump_to(jump: JumpFn, r: Array) -> DenoiseFn:
    """Returns the jump to the levels r [B] in the form of a denoiser."""

    def to_r(
        params: Params, x: Array, t: Array, label: Array | None = None, key: Key | None = None
    ) -> Array:
        return jump(params, x, t, r, label, key)

    return to_r


def check_guide(sampler: Sampler, guides: Mapping[str, Guide]) -> None:
    """Raises UserError if the sampler is guided by a run that was not opened."""
    if sampler.guide and sampler.guide not in guides:
        raise UserError(
            f'sampler {sampler.spec!r} is guided by another run, which only sample and evaluate open'
        )


class Start(NamedTuple):
    """What a batch of samples starts from."""

    x_T: Array  # [B,H,W,C], noise at t_max
    label: Array | None  # [B] int32, or None without classes
    keys: Array  # [B] typed keys for fresh noise


def start(model: GenerativeModel, seed: Array, indices: Array) -> Start:
    """Returns what the samples number `indices` [B] of the stream `seed` start from.

    The noise and the label of a sample depend only on the seed and on its index. Sample i of a
    class-conditional network has the class i modulo num_classes.
    """
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(indices)
    draw, fresh = jax.vmap(jax.random.split, out_axes=1)(keys)
    noise = jax.vmap(lambda key: jax.random.normal(key, model.image_shape))(draw)
    label = indices % model.num_classes if model.num_classes else None
    return Start(x_T=model.process.prior_std * noise, label=label, keys=fresh)


def generate(
    sampler: Sampler,
    model: GenerativeModel,
    params: Params,
    seed: Array,
    indices: Array,
    unroll: bool = False,
) -> Array:
    """Returns the samples number `indices` [B] of the stream `seed`, [B,H,W,C]; meant to be jitted.

    A sample depends only on the seed and on its index (see `start`), so it is the same for every batch
    size and number of devices. See `generate_from`.
    """
    return generate_from(sampler, model, params, start(model, seed, indices), unroll)


def generate_from(
    sampler: Sampler, model: GenerativeModel, params: Params, begin: Start, unroll: bool = False
) -> Array:
    """Returns the samples [B,H,W,C] that start from `begin`; meant to be jitted.

    If the sampler has a `guide`, `params` are the pair (those of the model, those of the guide). Raises
    UserError as `check_guidance`, `check_head`, `check_jump` and `check_guide` do.

    With `unroll` there is no loop: the denoiser is called once for each evaluation, which it can see.
    """
    check_guidance(sampler, model)
    check_head(sampler, len(model.heads))
    check_jump(sampler, model.jump)
    check_guide(sampler, model.guides)
    x_T, label, fresh = begin
    if sampler.jumps and model.jump is not None:
        flow_map = model.jump

        def jump(x: Array, t: Array, r: Array) -> Array:
            return guided(jump_to(flow_map, r), sampler.guidance)(params, x, t, label)

        return sampler.sample(jump, x_T, fresh, unroll=unroll)
    denoise = model.heads[sampler.head - 1] if sampler.head else model.denoise
    denoise = guided(denoise, sampler.guidance)
    if sampler.guide:
        guide = model.guides[sampler.guide].denoise
        denoise = autoguided(denoise, guide, sampler.autoguidance)
    return sampler.sample(lambda x, t: denoise(params, x, t, label), x_T, fresh, unroll=unroll)
