"""Networks behind one interface: `build(name, ...) -> Model(init, net)`. The only flax importers.

A network is a file in this folder with `build(image_shape, num_classes, **settings) -> Model`.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from cm_jax.errors import call, check_name
from cm_jax.types import Key, NetFn, Params

NETWORKS = ('song_unet', 'adm_unet', 'edm2_unet')


class Model(NamedTuple):
    """`init(key) -> params`; `net(params, x, cond, label, key) -> F`, of x's shape.

    `augment_dim` is how many augmentation labels the network takes in `cond`, after its noise level.
    `project(params) -> params` is where a network keeps its parameters in training: it is applied
    to the first ones and after each optimiser step. The identity, except for EDM2.
    """

    init: Callable[[Key], Params]
    net: NetFn
    augment_dim: int = 0
    project: Callable[[Params], Params] = lambda params: params


def build(
    settings: Mapping[str, Any], image_shape: tuple[int, int, int], num_classes: int
) -> Model:
    """The network of a config's `model` section: its `name`, one of NETWORKS, and its settings."""
    settings = dict(settings)
    name = settings.pop('name', None)
    check_name('network', name, NETWORKS)
    module = importlib.import_module(f'cm_jax.models.{name}')
    return call('model', module.build, settings, image_shape=image_shape, num_classes=num_classes)
