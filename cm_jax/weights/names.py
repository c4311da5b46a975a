"""Translates the official names and layouts of the networks' tensors to our parameters and back.

    layout    who wrote the weights            our network
    edm       EDM (also ECT, iCT in PyTorch)   song_unet, adm_unet     model.enc.32x32_conv.weight
    edm2      EDM2 (also ECT on ImageNet)      edm2_unet               unet.enc.64x64_conv.weight
    openai    OpenAI consistency models        adm_unet                input_blocks.0.0.weight

Besides the names, these things differ:

    tensor                          official                        ours
    convolution                     OIHW                            HWIO
    linear layer                    [out, in]                       [in, out]
    projections of attention        1x1 convolutions                linear layers
    output of qkv for channel c     3 c + j (OpenAI: j C + c)       j C + c
      of part j (q, k, v)
    class embedding of OpenAI       [class, width]                  the same

EDM stores its constant resampling filters beside the weights. They are always written; when they are
present in a state dict that is read, they are checked.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from cm_jax import models
from cm_jax.core import tree
from cm_jax.core.tree import FIXED
from cm_jax.errors import UserError, check_name
from cm_jax.types import Params
from cm_jax.weights.shapes import SHOWN, check_shapes

LAYOUTS = {'edm': ('song_unet', 'adm_unet'), 'edm2': ('edm2_unet',), 'openai': ('adm_unet',)}
LEAVES = {
    'kernel': 'weight',
    'scale': 'weight',
    FIXED + 'freqs': 'freqs',
    FIXED + 'phases': 'phases',
}
QKV = ('qkv', 'attn_qkv')
PROJECTIONS = (*QKV, 'proj', 'attn_proj')
OPENAI_TOP = {
    'map_layer0': 'time_embed.0',
    'map_layer1': 'time_embed.2',
    'map_label': 'label_emb',
    'out_norm': 'out.0',
    'out_conv': 'out.2',
}
OPENAI_BLOCK = {
    'norm0': 'in_layers.0',
    'conv0': 'in_layers.2',
    'affine': 'emb_layers.1',
    'norm1': 'out_layers.0',
    'conv1': 'out_layers.3',
    'skip': 'skip_connection',
}
OPENAI_ATTENTION = {'norm2': 'norm', 'qkv': 'qkv', 'proj': 'proj_out'}


class Tensor(NamedTuple):
    """One tensor: its path and shape in our parameters, and the layout of its official form."""

    path: tuple[str, ...]
    shape: tuple[int, ...]
    layout: str

    @property
    def as_is(self) -> bool:
        """Whether the official form has the same axes in the same order."""
        label = self.layout == 'openai' and self.path[-2:] == ('map_label', 'kernel')
        return label or len(self.shape) < 2

    @property
    def interleaved(self) -> bool:
        """Whether the official outputs are q, k and v of channel 0, then those of channel 1, ..."""
        return len(self.path) > 1 and self.path[-2] in QKV and self.layout != 'openai'

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
        """Returns our value in the official layout, float32: the inverse of `to_ours`."""
        value = np.asarray(value, np.float32)
        if not self.as_is:
            value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
        if self.interleaved:
            value = value.reshape(3, -1, *value.shape[1:]).swapaxes(0, 1).reshape(value.shape)
        return np.array(value.reshape(self.official_shape), order='C')

    @property
    def official_shape(self) -> tuple[int, ...]:
        """Its shape in the official layout."""
        if self.as_is:
            return self.shape
        square = (1, 1) if self.path[-2] in PROJECTIONS else self.shape[:-2]
        return (*self.shape[:-3:-1], *square)


def layout_of(names: Mapping[str, Any]) -> str:
    """Returns the layout of a state dict, one of LAYOUTS, which its names reveal.

    Raises UserError if they are the names of none.
    """
    for layout, prefix in (
        ('edm', 'model.map_layer0.'),
        ('edm2', 'unet.'),
        ('openai', 'time_embed.'),
    ):
        if any(name.startswith(prefix) for name in names):
            return layout
    first = ', '.join(sorted(names)[:SHOWN]) or 'none'
    raise UserError(
        f'these are weights of no network known here: {len(names)} tensors: {first} ...; legal: '
        'those of EDM (model.map_layer0...), EDM2 (unet...) and OpenAI (time_embed...)'
    )


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
    expected = {name: tensor.official_shape for name, tensor in tensors.items()}
    optional = {name: value.shape for name, value in constants.items()}
    check_shapes(state, expected, optional, settings['name'])
    for name, value in constants.items():
        if name in state and not np.allclose(state[name], value, atol=1e-3):
            raise UserError(f'{name} is not that of model.resample_filter in the settings')
    return tree.unflatten(
        {tensor.path: tensor.to_ours(state[name]) for name, tensor in tensors.items()}
    )


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
    if layout == 'openai':
        names = _openai_names(paths)
    else:
        names = {path: _edm_name(path, settings['name'], image_shape[0]) for path in paths}
    return {names[path]: Tensor(path, shape, layout) for path, shape in paths.items()}


def _edm_name(path: tuple[str, ...], network: str, height: int) -> str:
    """Returns the name of a parameter in the layouts 'edm' and 'edm2'.

    For example: ('enc_16_block0', 'conv0', 'kernel') -> 'model.enc.16x16_block0.conv0.weight'.
    """
    *modules, leaf = path
    if modules:
        top = re.sub(r'^(enc|dec)_(\d+)_', r'\1.\2x\2_', modules[0])
        if network == 'song_unet' and top in ('out_norm', 'out_conv'):
            top = f'dec.{height}x{height}_{top.replace("out", "aux")}'
        modules[0] = top
    prefix = 'model' if network != 'edm2_unet' else 'unet'
    outside = modules and modules[0].startswith('logvar_')
    return '.'.join([*([] if outside else [prefix]), *modules, LEAVES.get(leaf, leaf)])


def _openai_names(paths: Mapping[tuple[str, ...], Any]) -> dict[tuple[str, ...], str]:
    """Returns the name of each parameter in the layout 'openai', by its path.

    OpenAI's 'input_blocks' are our encoder's blocks in the order they run, and 'output_blocks' are our
    decoder's. An upsampling block has no number of its own there: it is the last member of the output
    block before it.
    """
    attending = {path[0] for path in paths if 'qkv' in path}
    blocks = {}  # our name -> (the official name, the official name of its attention)
    for i, name in enumerate(_in_order({path[0] for path in paths}, 'enc')):
        blocks[name] = (f'input_blocks.{i}.0', f'input_blocks.{i}.1')
    count, members = -1, 0
    for name in _in_order({path[0] for path in paths}, 'dec'):
        if name.endswith('_in0'):
            blocks[name] = ('middle_block.0', 'middle_block.1')
        elif name.endswith('_in1'):
            blocks[name] = ('middle_block.2', '')
        elif name.endswith('_up'):
            blocks[name] = (f'output_blocks.{count}.{members}', '')
        else:
            count, members = count + 1, 2 if name in attending else 1
            blocks[name] = (f'output_blocks.{count}.0', f'output_blocks.{count}.1')
    names = {}
    for path in paths:
        top, *inner, leaf = path
        if not inner:
            module = OPENAI_TOP[top] if top in OPENAI_TOP else blocks[top][0]
        elif inner[0] in OPENAI_ATTENTION:
            module = f'{blocks[top][1]}.{OPENAI_ATTENTION[inner[0]]}'
        else:
            module = f'{blocks[top][0]}.{OPENAI_BLOCK[inner[0]]}'
        names[path] = f'{module}.{LEAVES.get(leaf, leaf)}'
    return names


def _in_order(tops: set[str], side: str) -> list[str]:
    """Returns the blocks of one side, 'enc' or 'dec', in the order in which they run."""
    keyed = []
    for name in tops:
        match = re.fullmatch(rf'{side}_(\d+)_(conv|down|up|in|block)(\d*)', name)
        if match:
            res, kind, i = int(match[1]), match[2], int(match[3] or 0)
            keyed.append((-res if side == 'enc' else res, kind == 'block', i, name))
    return [name for *_, name in sorted(keyed)]


def _filters(settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Returns EDM's resampling filters, [1, 1, n, n], by name; {} for the other layouts."""
    layouts = {tensor.layout for tensor in tensors.values()}
    if layouts != {'edm'}:
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
