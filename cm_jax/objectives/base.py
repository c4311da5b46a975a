"""What a method is: four pure functions; and loading one by its file name."""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from cm_jax import objectives
from cm_jax.core.process import Process
from cm_jax.errors import UserError, call, check_name
from cm_jax.types import Array, Batch, DenoiseFn, Key, Metrics, NetFn, Params


class Objective(NamedTuple):
    """A method.

    denoise: (params, x, t, label=None, key=None) -> x0_hat, all that samplers, metrics and LCSC see.
    init: (params) -> refs, what the method keeps beside the weights (a target network), or ().
    loss: (params, refs, teacher, batch, key, step) -> (loss [B], metrics). `teacher` is the frozen
      weights of another network, or (). metrics holds [B] arrays, 't' (the noise level) among them.
    update: (refs, params, step) -> refs, after each optimiser step.
    augment_dim: how many augmentation labels `loss` gives the network in `cond`, after its noise
      level; the network must take as many. 0 is none.
    """

    denoise: DenoiseFn
    init: Callable[[Params], Any]
    loss: Callable[[Params, Any, Params, Batch, Key, Array], tuple[Array, Metrics]]
    update: Callable[[Any, Params, Array], Any]
    augment_dim: int = 0


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
    """The objectives that there are: the files of this folder."""
    return [m.name for m in pkgutil.iter_modules(objectives.__path__) if m.name != 'base']


def build(settings: Mapping[str, Any], net: NetFn, process: Process) -> Objective:
    """The objective of a config's `objective` section: its `name` and its settings."""
    settings = dict(settings)
    name = settings.pop('name', None)
    check_name('objective', name, names())
    module = importlib.import_module(f'cm_jax.objectives.{name}')
    return call('objective', module.make, settings, net=net, process=process)
