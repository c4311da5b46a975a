"""Translates the official names and layouts of the networks' tensors to our parameters and back.

The names are in weights/layouts.py. Besides them, these things differ:

    tensor                          official                        ours
    convolution                     OIHW (jcm: HWIO)                HWIO
    linear layer                    [out, in] (jcm: [in, out])      [in, out]
    projections of attention        1x1 convolutions (jcm: linear)  linear layers
    output of qkv for channel c     3 c + j (openai: j C + c;       j C + c
      of part j (q, k, v)             jcm: q, k and v apart)
    class embedding of OpenAI       [class, width]                  the same

EDM stores its constant resampling filters beside the weights. They are always written in the layouts
'edm' and 'bare'; when they are present in a state dict that is read, they are checked.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from cm_jax import models
from cm_jax.core import tree
from cm_jax.errors import UserError, check_name
from cm_jax.types import Params
from cm_jax.weights.layouts import LAYOUTS, names_of
from cm_jax.weights.shapes import SHOWN, check_shapes

Shapes = dict[str, tuple[int, ...]]  # by the official names
QKV = ('qkv', 'attn_qkv')
PROJECTIONS = (*QKV, 'proj', 'attn_proj')
FILTERED = ('edm', 'bare')  # the layouts that have resampling filters
BEGINNINGS = {  # layout -> how only names of that layout begin
    'edm': 'model.map_layer0.',
    'edm2': 'unet.',
    'openai': 'time_embed.',
    'bare': 'map_layer0.',
    'jcm': 'ResnetBlockBigGANpp_',
}


class Tensor(NamedTuple):
    """One tensor: its path and shape in our parameters, and the layout of its official form.

    Where several tensors of a layout make one of ours, this is its `part` of so many `parts` along the
    last axis.
    """

    path: tuple[str, ...]
    shape: tuple[int, ...]
    layout: str
    part: int = 0
    parts: int = 1

    @property
    def as_is(self) -> bool:
        """Whether the official form has the same axes in the same order."""
        label = self.layout == 'openai' and self.path[-2:] == ('map_label', 'kernel')
        return label or self.layout == 'jcm' or len(self.shape) < 2

    @property
    def interleaved(self) -> bool:
        """Whether the official outputs are q, k and v of channel 0, then those of channel 1, ..."""
        others = ('openai', 'jcm')
        return len(self.path) > 1 and self.path[-2] in QKV and self.layout not in others

    def to_ours(self, value: np.ndarray) -> np.ndarray:
        """Returns the official value in our layout, float32."""
        value = np.asarray(value).astype(np.float32)
        if self.interleaved:
            value = value.reshape(-1, 3, *value.shape[1:]).swapaxes(0, 1).reshape(value.shape)
        if not self.as_is:
            value = value.reshape(value.shape[:2]) if len(self.shape) == 2 else value
            value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
        return np.array(value, order='C')

    def to_official(self, value: np.ndarray) -> np.ndarray:
        """Returns our value, or the part of it, in the official layout, float32."""
        value = np.asarray(value, np.float32)
        if self.parts > 1:
            value = np.split(value, self.parts, axis=-1)[self.part]
        if not self.as_is:
            value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
        if self.interleaved:
            value = value.reshape(3, -1, *value.shape[1:]).swapaxes(0, 1).reshape(value.shape)
        return np.array(value.reshape(self.official_shape), order='C')

    @property
    def official_shape(self) -> tuple[int, ...]:
        """Its shape in the official layout."""
        if self.parts > 1:
            return (*self.shape[:-1], self.shape[-1] // self.parts)
        if self.as_is:
            return self.shape
        square = (1, 1) if self.path[-2] in PROJECTIONS else self.shape[:-2]
        return (*self.shape[:-3:-1], *square)


def layout_of(names: Mapping[str, Any]) -> str:
    """Returns the layout of a state dict, one of LAYOUTS, which its names reveal.

    Raises UserError if they are the names of none.
    """
    for layout, beginning in BEGINNINGS.items():
        if any(name.startswith(beginning) for name in names):
            return layout
    first = ', '.join(sorted(names)[:SHOWN]) or 'none'
    legal = ', '.join(f'{layout} ({beginning}...)' for layout, beginning in BEGINNINGS.items())
    raise UserError(
        f'these are weights of no network known here: {len(names)} tensors: {first} ...; legal: {legal}'
    )


def own_layout(settings: Mapping[str, Any]) -> str:
    """Returns the layout for weights of a network that were trained here, by its `model` settings.

    It is that of EDM or EDM2, or OpenAI's where EDM's code has no such network.
    """
    if settings['name'] == 'edm2_unet':
        return 'edm2'
    return 'edm' if settings.get('scale_shift', True) else 'openai'


def to_params(
    state: Mapping[str, np.ndarray],
    settings: Mapping[str, Any],
    image_shape: tuple[int, int, int],
    num_classes: int,
    layout: str,
) -> Params:
    """Returns our parameters, float32 on the host, from an official state dict.

    `settings` is a config's `model` section. Raises UserError, in one line, if a tensor is missing,
    unexpected or of the wrong shape, or a resampling filter is not that of the settings.
    """
    tensors = _tensors(settings, image_shape, num_classes, layout)
    constants = _filters(settings, tensors)
    check_shapes(state, *_official_shapes(tensors, constants), settings['name'])
    for name, value in constants.items():
        if name in state and not np.allclose(state[name], value, atol=1e-3):
            raise UserError(f'{name} is not that of model.resample_filter in the settings')
    parts: dict[tuple[str, ...], list[np.ndarray]] = {}
    for name, tensor in tensors.items():
        parts.setdefault(tensor.path, []).append(tensor.to_ours(state[name]))
    return tree.unflatten(
        {path: p[0] if len(p) == 1 else np.concatenate(p, axis=-1) for path, p in parts.items()}
    )


def official_shapes(
    settings: Mapping[str, Any],
    image_shape: tuple[int, int, int],
    num_classes: int,
    layout: str,
) -> tuple[Shapes, Shapes]:
    """Returns the shapes of the tensors that a state dict of a layout must have, and of others.

    The others, which it may have, are EDM's resampling filters. No weight is allocated.
    """
    tensors = _tensors(settings, image_shape, num_classes, layout)
    return _official_shapes(tensors, _filters(settings, tensors))


def to_state(
    params: Params,
    settings: Mapping[str, Any],
    image_shape: tuple[int, int, int],
    num_classes: int,
    layout: str,
) -> dict[str, np.ndarray]:
    """Returns the official state dict, float32, of our parameters: the exact inverse of `to_params`.

    Raises UserError if the parameters are not those of the network in `settings`.
    """
    tensors = _tensors(settings, image_shape, num_classes, layout)
    flat = tree.flatten(params)
    shapes = {path: np.shape(value) for path, value in flat.items()}
    if shapes != {tensor.path: tensor.shape for tensor in tensors.values()}:
        raise UserError(f'the parameters are not those of {settings["name"]} with these settings')
    state = {name: tensor.to_official(flat[tensor.path]) for name, tensor in tensors.items()}
    return state | _filters(settings, tensors)


def _official_shapes(
    tensors: Mapping[str, Tensor], constants: Mapping[str, np.ndarray]
) -> tuple[Shapes, Shapes]:
    """Returns what `official_shapes` does, of all parameters and constants by their official names."""
    return (
        {name: tensor.official_shape for name, tensor in tensors.items()},
        {name: value.shape for name, value in constants.items()},
    )


def _tensors(
    settings: Mapping[str, Any],
    image_shape: tuple[int, int, int],
    num_classes: int,
    layout: str,
) -> dict[str, Tensor]:
    """Returns all parameters and constants of the network by their official names."""
    check_name('layout of weights', layout, LAYOUTS)
    model = models.build(settings, image_shape, num_classes)
    check_name(f'network with weights of layout {layout}', settings['name'], LAYOUTS[layout])
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    paths = {path: leaf.shape for path, leaf in tree.flatten(shapes).items()}
    return {
        name: Tensor(path, paths[path], layout, part, len(names))
        for path, names in names_of(paths, settings['name'], image_shape[0], layout).items()
        for part, name in enumerate(names)
    }


def _filters(settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Returns EDM's resampling filters, [1, 1, n, n], by name; {} for the layouts without them."""
    if not {tensor.layout for tensor in tensors.values()} <= set(FILTERED):
        return {}
    taps = np.asarray(settings.get('resample_filter', (1, 1)), np.float32)
    filter_2d = np.outer(taps, taps)[None, None] / np.sum(taps) ** 2
    names = []
    for block in {name.rsplit('.', 2)[0] for name in tensors if re.search(r'_(down|up)\.', name)}:
        names += [f'{block}.conv0.resample_filter', f'{block}.skip.resample_filter']
    names += [
        name.replace('.weight', '.resample_filter')
        for name in tensors
        if name.endswith('_aux_residual.weight')
    ]
    return {name: filter_2d for name in sorted(names)}
