"""The networks, all behind one interface: `build(settings, ...)` returns a `Model(init, net)`.

Each file of this folder that is named in NETWORKS defines one network by a function
`build(image_shape, num_classes, **settings) -> Model`, and `add_time(params, template)`, which the
function of that name here calls. No other folder imports flax.
"""

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from cm_jax.errors import UserError, build_from, check_name
from cm_jax.types import Key, LogVarianceFn, NetFn, Params

NETWORKS = ('song_unet', 'adm_unet', 'edm2_unet')
PRIORS = ('song_unet',)  # the networks that can have two heads, as a prior needs
NET = 'net'  # the key under which `side_by_side` keeps the parameters of the network that samples


class Model(NamedTuple):
    """A network as two functions, with what its users must know about it.

    `init(key)` returns fresh parameters. `net(params, x, cond, label, key)` returns the raw output F:
    it has the shape of x [B,H,W,C], or [B,H,W,heads C] for a network of several heads, whose outputs
    lie one after the other along the channels, head 1 first. `augment_dim` is the number of
    augmentation labels that the network takes in `cond` after its times. `project(params)`
    returns the parameters with the network's constraint enforced: training applies it to the initial
    parameters and after each optimiser step. It is the identity, except for EDM2, whose weights keep
    a fixed norm. `log_variance(params, cond)` returns the network's estimate u(t) [B] of the logarithm
    of its own loss at a noise level; None for a network that makes none, and for combined ones.
    `times` is the number of times in `cond`: 1, the noise level, or 2 for methods of two times.
    """

    init: Callable[[Key], Params]
    net: NetFn
    augment_dim: int = 0
    project: Callable[[Params], Params] = lambda params: params
    heads: int = 1
    log_variance: LogVarianceFn | None = None
    times: int = 1


def build(
    settings: Mapping[str, Any], image_shape: tuple[int, int, int], num_classes: int
) -> Model:
    """Returns the network that a config's `model` section describes.

    `settings` holds the network's `name`, one of NETWORKS, and keyword arguments of its `build`.
    Raises UserError on an unknown name, an unknown or missing setting, and a value out of range.
    """
    settings = dict(settings)
    name = settings.pop('name', None)
    check_name('network', name, NETWORKS)
    module = importlib.import_module(f'cm_jax.models.{name}')
    return build_from(
        'model', module.build, settings, image_shape=image_shape, num_classes=num_classes
    )


def heights(image_shape: Sequence[int], channel_mult: Sequence[int]) -> list[int]:
    """Returns the image heights that a network of such images has, finest first."""
    return [image_shape[0] >> level for level in range(len(channel_mult))]


def check_resolutions(name: str, resolutions: Sequence[int], legal: Sequence[int]) -> None:
    """Raises UserError, which says the setting's `name`, unless all `resolutions` are `legal`."""
    for resolution in resolutions:
        if resolution not in legal:
            raise UserError(
                f'{name} names resolution {resolution}; this network has '
                f'{", ".join(map(str, legal))}'
            )


def with_defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a `model` or `prior` section completed with the defaults of its network's `build`.

    A section that names no network gives {}. Raises UserError on an unknown name.
    """
    if not settings.get('name'):
        return {}
    check_name('network', settings['name'], NETWORKS)
    module = importlib.import_module(f'cm_jax.models.{settings["name"]}')
    parameters = inspect.signature(module.build).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty} | dict(settings)


def add_time(settings: Mapping[str, Any], params: Params, template: Params) -> Params:
    """Returns the parameters of a network of one time as those of the same network of two times.

    `settings` is the `model` section and `template` has the shapes of the result. At the start the
    network of two times does not depend on the second one: it is the same function of the first, up
    to rounding.
    """
    module = importlib.import_module(f'cm_jax.models.{settings["name"]}')
    return module.add_time(params, template)


def build_prior(settings: Mapping[str, Any], image_shape: tuple[int, int, int]) -> Model:
    """Returns the network that a config's `prior` section describes.

    It takes an image and no class. Its two heads are the mean and the log variance of the noise that
    goes with that image. Raises UserError as `build` does; the `name` must be one of PRIORS.
    """
    settings = dict(settings)
    name = settings.pop('name', None)
    check_name('network of a prior', name, PRIORS)
    module = importlib.import_module(f'cm_jax.models.{name}')
    return build_from(
        'prior', module.build, settings, image_shape=image_shape, num_classes=0, heads=2, times=1
    )


def side_by_side(net: Model, **others: Model) -> tuple[Model, dict[str, NetFn]]:
    """Combines networks that are trained together into one model with one tree of parameters.

    `net` is the network that samples; `others` are the further ones, by name. The combined parameters
    are {NET: parameters of `net`, name: parameters of that other network, ...}.

    Returns (model, {name: NetFn}): the combined model, whose `net` is the sampling network, and the
    other networks. Each of these functions is called with the combined parameters and uses its part.
    """
    models = {NET: net, **others}

    def init(key: Key) -> Params:
        keys = jax.random.split(key, len(models))
        return {
            name: model.init(model_key) for (name, model), model_key in zip(models.items(), keys)
        }

    def project(params: Params) -> Params:
        return {name: model.project(params[name]) for name, model in models.items()}

    def net_on_combined_params(name: str) -> NetFn:
        return lambda params, *args, **kwargs: models[name].net(params[name], *args, **kwargs)

    combined = net._replace(
        init=init, net=net_on_combined_params(NET), project=project, log_variance=None
    )
    return combined, {name: net_on_combined_params(name) for name in others}
