"""Networks behind one interface: `build(name, ...) -> Model(init, net)`. The only flax importers.

A network is a file in this folder with `build(image_shape, num_classes, **settings) -> Model`.
"""

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from cm_jax.errors import build_from, check_name
from cm_jax.types import Key, NetFn, Params

NETWORKS = ('song_unet', 'adm_unet', 'edm2_unet')
PRIORS = ('song_unet',)  # those that can have two heads
NET = 'net'  # of several networks' parameters, those of the one that samples


class Model(NamedTuple):
    """`init(key) -> params`; `net(params, x, cond, label, key) -> F`, of x's shape.

    A network of several heads puts them out side by side: F is [B,H,W,heads C], head 1 first.
    `augment_dim` is how many augmentation labels the network takes in `cond`, after its noise level.
    `project(params) -> params` is where a network keeps its parameters in training: it is applied
    to the first ones and after each optimiser step. The identity, except for EDM2.
    """

    init: Callable[[Key], Params]
    net: NetFn
    augment_dim: int = 0
    project: Callable[[Params], Params] = lambda params: params
    heads: int = 1


def build(
    settings: Mapping[str, Any], image_shape: tuple[int, int, int], num_classes: int
) -> Model:
    """The network of a config's `model` section: its `name`, one of NETWORKS, and its settings."""
    settings = dict(settings)
    name = settings.pop('name', None)
    check_name('network', name, NETWORKS)
    module = importlib.import_module(f'cm_jax.models.{name}')
    return build_from(
        'model', module.build, settings, image_shape=image_shape, num_classes=num_classes
    )


def with_defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A `model` or `prior` section with what it leaves to its network; {} for one that names none."""
    if not settings.get('name'):
        return {}
    check_name('network', settings['name'], NETWORKS)
    module = importlib.import_module(f'cm_jax.models.{settings["name"]}')
    parameters = inspect.signature(module.build).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty} | dict(settings)


def build_prior(settings: Mapping[str, Any], image_shape: tuple[int, int, int]) -> Model:
    """The network of a config's `prior` section: mean and log variance of the noise that goes with an
    image, its two heads, without classes. `name` is one of PRIORS."""
    settings = dict(settings)
    name = settings.pop('name', None)
    check_name('network of a prior', name, PRIORS)
    module = importlib.import_module(f'cm_jax.models.{name}')
    return build_from(
        'prior', module.build, settings, image_shape=image_shape, num_classes=0, heads=2
    )


def side_by_side(net: Model, **others: Model) -> tuple[Model, dict[str, NetFn]]:
    """Networks that are trained together, as one: `net` is the model's, and `others` are by name.

    The parameters are {NET: those of net, name: those of the other}; every network that comes back
    is called with all of them and takes its own. (Model, {name: the other's network}.)
    """
    models = {NET: net, **others}

    def init(key: Key) -> Params:
        keys = jax.random.split(key, len(models))
        return {name: model.init(one) for (name, model), one in zip(models.items(), keys)}

    def project(params: Params) -> Params:
        return {name: model.project(params[name]) for name, model in models.items()}

    def own(name: str) -> NetFn:
        return lambda params, *args, **kwargs: models[name].net(params[name], *args, **kwargs)

    whole = net._replace(init=init, net=own(NET), project=project)
    return whole, {name: own(name) for name in others}
