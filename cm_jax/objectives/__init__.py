"""The type that every method is (`Objective`, four pure functions), and how one is made by name."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from cm_jax.core.process import Process
from cm_jax.errors import UserError, build_from, check_name
from cm_jax.types import (
    Array,
    Batch,
    DenoiseFn,
    Distance,
    JumpFn,
    Key,
    LogVarianceFn,
    Metrics,
    NetFn,
    Params,
)

LPIPS = 'lpips'  # the one distance that is a network


class Pairs(NamedTuple):
    """The pairs of noise levels t > r between which a consistency method compares its denoiser D.

    draw: (key, count, step) -> (t [count], r [count]), the pairs that the loss draws at a step.
    difference: (params, teacher, x0, eps, t, r, label=None) -> D(x_t, t) - D(x_r, r), of x0's shape:
      what the loss measures, with the weights `params` at both levels and without dropout. Where r = 0,
      x0 takes the place of D(x_r, r). `teacher` are the weights of the teacher, or ().
    num_levels: step -> N, the number of levels of the grid that `draw` draws from; None without a grid.
    """

    draw: Callable[[Key, int, Array], tuple[Array, Array]]
    difference: Callable[..., Array]
    num_levels: Callable[[Array], Array | int] | None = None


class Objective(NamedTuple):
    """A training method.

    denoise: (params, x, t, label=None, key=None) -> x0_hat. Samplers, metrics and the search for
      weights (LCSC) use this function and nothing else of the method.
    init: (params) -> refs. What the method keeps beside the weights, e.g. a target network; () if it
      keeps nothing.
    loss: (params, refs, teacher, batch, key, step) -> (loss [B], metrics). `teacher` holds the frozen
      weights of another network, or is (). Every value of `metrics` is an array [B]; the key 't', the
      noise level, is always there.
    update: (refs, params, step) -> refs. Called after each step of the optimiser.
    augment_dim: the number of augmentation labels that `loss` appends to the noise level in `cond`.
      The network must accept exactly as many; 0 means that `loss` does not augment.
    heads: one denoiser for each head of a network with several (see models.Model); `denoise` is one
      of them. Empty for a network with one head.
    jump: (params, x, t, r, label=None, key=None) -> x_r, the flow map that the method learns; its
      network takes two times (`model.times` = 2), and `denoise` is its jump to 0. None for the methods
      of one time.
    pairs: what `loss` compares, for the methods whose loss compares D at two noise levels; else None.
    """

    denoise: DenoiseFn
    init: Callable[[Params], Any]
    loss: Callable[[Params, Any, Params, Batch, Key, Array], tuple[Array, Metrics]]
    update: Callable[[Any, Params, Array], Any]
    augment_dim: int = 0
    heads: tuple[DenoiseFn, ...] = ()
    pairs: Pairs | None = None
    jump: JumpFn | None = None


def no_refs(params: Params) -> tuple:
    """The `init` of a method that keeps nothing beside the weights: returns ()."""
    del params
    return ()


def keep_refs(refs: Any, params: Params, step: Array) -> Any:
    """The `update` of a method that keeps nothing beside the weights: returns `refs` as they are."""
    del params, step
    return refs


def require_process(objective: str, process: Process, *legal: str) -> None:
    """Raises UserError unless the name of `process` is one of `legal`."""
    if process.name not in legal:
        raise UserError(
            f'objective {objective!r} is defined on process {" or ".join(legal)}, '
            f'got {process.name!r}'
        )


def names() -> list[str]:
    """Returns the names of all objectives: the files here whose names do not begin with _."""
    modules = pkgutil.iter_modules(__path__)
    return [module.name for module in modules if not module.name.startswith('_')]


def maker(name: str | None) -> Callable[..., Objective]:
    """Returns the function `make` of an objective. Raises UserError on an unknown name or None."""
    legal = names()
    if name is None:
        raise UserError(f'unknown objective None; legal: {", ".join(legal)}')
    check_name('objective', name, legal)
    return importlib.import_module(f'cm_jax.objectives.{name}').make


def with_defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns an `objective` section completed with the defaults of its `make`.

    Raises UserError on an unknown name.
    """
    parameters = inspect.signature(maker(settings['name'])).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty} | dict(settings)


def guidance(settings: Mapping[str, Any]) -> float:
    """Returns by how much the loss of an `objective` section guides; 1 is no guidance."""
    return with_defaults(settings).get('guidance', 1)  # not every objective has the setting


def takes_teacher(name: str | None) -> bool:
    """Returns whether the objective learns from the frozen weights of another run, its teacher."""
    return 'teacher_denoise' in inspect.signature(maker(name)).parameters


def names_with_pairs() -> list[str]:
    """Returns the names of the objectives that have `pairs`: those made by `make_consistency`."""
    return [name for name in names() if 'make_consistency' in maker(name).__globals__]


def takes_prior(name: str | None) -> bool:
    """Returns whether the objective can learn the noise of each image by a second network."""
    return 'prior' in inspect.signature(maker(name)).parameters


def no_teacher(*args: Any) -> Array:
    """Stands in for the teacher's denoiser where no teacher was opened. Raises UserError if called.

    Only the loss calls it, so that a run can be sampled and evaluated without its teacher.
    """
    raise UserError('config.teacher.workdir is not set: this objective learns from a teacher')


def no_lpips(*args: Any) -> Array:
    """Stands in for LPIPS where its weights were not loaded. Raises UserError if called.

    Only the loss calls it, so that a run can be sampled and evaluated without these weights.
    """
    raise UserError('config.lpips names no files: the distance of this objective needs its weights')


def build(
    settings: Mapping[str, Any],
    net: NetFn,
    process: Process,
    teacher_denoise: DenoiseFn | None = None,
    lpips: Distance | None = None,
    prior: NetFn | None = None,
    log_variance: LogVarianceFn | None = None,
) -> Objective:
    """Returns the objective that the section `objective` of a config describes.

    Raises UserError on an unknown name, on settings that are unknown, missing or out of range, and on
    a teacher or a prior for an objective that takes none.

    Args:
      settings: the section: the objective's `name`, and the settings that its `make` takes.
      net: the network that is trained.
      process: how noise is added to an image.
      teacher_denoise: the teacher's denoiser, for an objective that takes one. None is enough where
        the loss is not called.
      lpips: the network behind the distance 'lpips'. None is enough where the loss is not called.
      prior: the network of config.prior, or None if the config has none.
      log_variance: that of the network's Model, for an objective that can use it.
    """
    settings = dict(settings)
    name = settings.pop('name', None)
    if settings.get('distance') == LPIPS:
        settings['distance'] = lpips or Distance(LPIPS, no_lpips, (), {})
    wired: dict[str, Any] = {'net': net, 'process': process}
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
    if 'log_variance' in inspect.signature(maker(name)).parameters:
        wired['log_variance'] = log_variance
    return build_from('objective', maker(name), settings, **wired)
