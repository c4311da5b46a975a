"""What a method is: four pure functions; and loading one by its file name."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from cm_jax.core.process import Process
from cm_jax.errors import UserError, build_from, check_name
from cm_jax.types import Array, Batch, DenoiseFn, Distance, Key, Metrics, NetFn, Params

LPIPS = 'lpips'  # the distance that is a network
POSITIVE = ('sigma_data', 'p_std', 'rho')  # what these names mean is > 0 in every objective


class Objective(NamedTuple):
    """A method.

    denoise: (params, x, t, label=None, key=None) -> x0_hat, all that samplers, metrics and LCSC see.
    init: (params) -> refs, what the method keeps beside the weights (a target network), or ().
    loss: (params, refs, teacher, batch, key, step) -> (loss [B], metrics). `teacher` is the frozen
      weights of another network, or (). metrics holds [B] arrays, 't' (the noise level) among them.
    update: (refs, params, step) -> refs, after each optimiser step.
    augment_dim: how many augmentation labels `loss` gives the network in `cond`, after its noise
      level; the network must take as many. 0 is none.
    heads: D of each head, for a network of several (see models.Model); `denoise` is one of them.
    """

    denoise: DenoiseFn
    init: Callable[[Params], Any]
    loss: Callable[[Params, Any, Params, Batch, Key, Array], tuple[Array, Metrics]]
    update: Callable[[Any, Params, Array], Any]
    augment_dim: int = 0
    heads: tuple[DenoiseFn, ...] = ()


def no_refs(params: Params) -> tuple:
    """`init` of a method that keeps nothing."""
    del params
    return ()


def keep_refs(refs: Any, params: Params, step: Array) -> Any:
    """`update` of a method that keeps nothing."""
    del params, step
    return refs


def require_process(objective: str, process: Process, *legal: str) -> None:
    """Raises UserError unless the objective is defined on this process."""
    if process.name not in legal:
        raise UserError(
            f'objective {objective!r} is defined on process {" or ".join(legal)}, '
            f'got {process.name!r}'
        )


def names() -> list[str]:
    """The objectives that there are: the files of this folder whose names do not begin with _."""
    return [m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith('_')]


def maker(name: str | None) -> Callable[..., Objective]:
    """`make` of the objective `name`."""
    check_name('objective', name, names())
    return importlib.import_module(f'cm_jax.objectives.{name}').make


def takes_teacher(name: str | None) -> bool:
    """Whether the objective learns from the frozen weights of another run."""
    return 'teacher_denoise' in inspect.signature(maker(name)).parameters


def takes_prior(name: str | None) -> bool:
    """Whether the objective can learn the noise that goes with an image, with a network of its own."""
    return 'prior' in inspect.signature(maker(name)).parameters


def no_teacher(*args: Any) -> Array:
    """The denoiser of a teacher that was not opened, which only training needs."""
    raise UserError('config.teacher.workdir is not set: this objective learns from a teacher')


def no_lpips(*args: Any) -> Array:
    """LPIPS without its weights, which only training needs."""
    raise UserError('config.lpips names no files: the distance of this objective needs its weights')


def build(
    settings: Mapping[str, Any],
    net: NetFn,
    process: Process,
    teacher_denoise: DenoiseFn | None = None,
    lpips: Distance | None = None,
    prior: NetFn | None = None,
) -> Objective:
    """The objective of a config's `objective` section: its `name` and its settings.

    `teacher_denoise`: D of the teacher, for an objective that takes one; `lpips`: the network behind
    the distance 'lpips'. Both may be None if only the denoiser will be used. `prior`: the network of
    config.prior, None if there is none. Raises UserError where the objective takes no such part.
    """
    settings = dict(settings)
    name = settings.pop('name', None)
    for key in POSITIVE:
        if settings.get(key) is not None and not settings[key] > 0:
            raise UserError(f'config.objective.{key} must be > 0, got {settings[key]}')
    if settings.get('distance') == LPIPS:
        settings['distance'] = lpips or Distance(LPIPS, no_lpips, (), {})
    wired = {'net': net, 'process': process}
    if takes_teacher(name):
        wired['teacher_denoise'] = teacher_denoise or no_teacher
    elif teacher_denoise is not None:
        raise UserError(
            f'objective {name!r} takes no teacher; config.teacher.workdir must be empty'
        )
    if takes_prior(name):
        wired['prior'] = prior
    elif prior is not None:
        raise UserError(f'objective {name!r} takes no prior; config.prior must be empty')
    return build_from('objective', maker(name), settings, **wired)
