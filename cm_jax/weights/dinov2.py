"""DINOv2 ViT-L/14 from the file of its public weights: `load(path) -> Extractor`.

The state dict of `dinov2_vitl14_pretrain.pth`, in any format of weights/read.py:

    cls_token [1,1,1024]   pos_embed [1,1370,1024]   mask_token [1,1024] (for training; not read)
    patch_embed.proj.weight [1024,3,14,14], .bias
    blocks.0.norm1.{weight,bias}, .attn.qkv, .attn.proj, .ls1.gamma, .norm2, .mlp.fc1, .mlp.fc2,
        .ls2.gamma ...
    norm.{weight,bias}

The file has positions for 37 x 37 patches, which is 518 x 518 pixels. They are interpolated to the
16 x 16 patches of 224 x 224 pixels here, once, as the official code does at each call.
"""

import functools
import pathlib
from collections.abc import Mapping

import numpy as np

from cm_jax.core import tree
from cm_jax.errors import UserError
from cm_jax.files import expanded, sha256
from cm_jax.models import dinov2
from cm_jax.models.dinov2 import VIT_L14, Sizes
from cm_jax.types import Extractor, Params
from cm_jax.weights.read import read_tensors
from cm_jax.weights.shapes import check_shapes

NAME = 'dinov2_vitl14'
FILE = 'dinov2_vitl14_pretrain.pth'
UNREAD = 'mask_token'
OFFSET = 0.1  # patches; the official code adds it to the side of the new grid
CUBIC = -0.75  # the parameter a of Keys' cubic in PyTorch's bicubic interpolation
MODULES = {  # in a block: our name -> the official name
    'norm1': 'norm1',
    'qkv': 'attn.qkv',
    'proj': 'attn.proj',
    'norm2': 'norm2',
    'fc1': 'mlp.fc1',
    'fc2': 'mlp.fc2',
}
LEAVES = {'kernel': 'weight', 'scale': 'weight', 'bias': 'bias'}
SINGLE: dict[tuple[str, ...], str] = {('token',): 'cls_token', ('positions',): 'pos_embed'}


def load(path: str | pathlib.Path, sizes: Sizes = VIT_L14) -> Extractor:
    """Returns the feature extractor of a weights file; its parameters are numpy arrays on the host.

    Its checksum is that of the file. Raises UserError, in one line, if the file is missing or damaged,
    or a tensor is missing, unexpected, of the wrong shape or not finite.
    """
    if not isinstance(path, str | pathlib.Path) or not str(path):
        raise UserError(
            f'the extractor {NAME!r} needs the file of its weights ({FILE} or another format), got '
            f'{path!r}'
        )
    path = pathlib.Path(expanded(path))
    state, _ = read_tensors(path)
    try:
        params = to_params(state, sizes)
    except UserError as error:
        raise UserError(f'{path}: {error}') from None
    return Extractor(
        name=NAME,
        score='fd_dinov2',
        dim=sizes.dim,
        apply=functools.partial(dinov2.features, sizes=sizes),
        params=params,
        logits=None,
        checksum=sha256(path),
        resize=dinov2.RESIZE,
    )


def official_names(sizes: Sizes) -> dict[tuple[str, ...], str]:
    """Returns the official name of each of our parameters, by its path."""
    names: dict[tuple[str, ...], str] = {}
    for path in tree.flatten(dinov2.shapes(sizes)):
        if path in SINGLE:
            names[path] = SINGLE[path]
        elif path[0] in ('patch', 'norm'):
            module = {'patch': 'patch_embed.proj', 'norm': 'norm'}[path[0]]
            names[path] = f'{module}.{LEAVES[path[1]]}'
        else:
            block, *inside = path
            end = f'ls{inside[0][-1]}.gamma'  # scale1, scale2
            if len(inside) == 2:
                end = f'{MODULES[inside[0]]}.{LEAVES[inside[1]]}'
            names[path] = f'blocks.{block.removeprefix("block")}.{end}'
    return names


def official_shapes(sizes: Sizes = VIT_L14) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every tensor that is read, by its official name."""
    flat = tree.flatten(dinov2.shapes(sizes))
    shapes = {}
    for path, name in official_names(sizes).items():
        shape = flat[path].shape
        if path[-1] == 'kernel':  # HWIO -> OIHW, IO -> OI
            shape = (*shape[:-3:-1], *shape[:-2])
        shapes[name] = shape
    shapes['pos_embed'] = (1, 1 + sizes.grid**2, sizes.dim)
    return shapes


def to_params(state: Mapping[str, np.ndarray], sizes: Sizes = VIT_L14) -> Params:
    """Returns our parameters, float32 on the host, from an official state dict.

    Raises UserError as `load` does, if a tensor is wrong.
    """
    state = {name: value for name, value in state.items() if name != UNREAD}
    check_shapes(state, official_shapes(sizes), {}, f'DINOv2 of width {sizes.dim}')
    flat = {}
    for path, name in official_names(sizes).items():
        value = np.asarray(state[name])
        if not np.isfinite(value).all():
            raise UserError(f'{name} has values that are not finite')
        if path[-1] == 'kernel':
            value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
        if name == 'pos_embed':
            value = resized_positions(value, sizes)
        flat[path] = np.array(value, np.float32, order='C')
    return tree.unflatten(flat)


def resized_positions(positions: np.ndarray, sizes: Sizes) -> np.ndarray:
    """Interpolates the file's positions [1, 1 + grid^2, dim] to [1, tokens, dim], float64.

    The first position, the class token's, is kept as it is. The others go from grid x grid to n x n
    patches by PyTorch's bicubic interpolation without antialiasing, with the scale
    (n + OFFSET) / grid. If n is equal to grid, the positions are returned unchanged.
    """
    n, grid = sizes.side // sizes.patch, sizes.grid
    if n == grid:
        return positions
    matrix = positions_matrix(grid, n)
    token, patches = positions[:, :1], np.asarray(positions[:, 1:], np.float64)
    patches = np.einsum('yh,xw,bhwc->byxc', matrix, matrix, patches.reshape(1, grid, grid, -1))
    return np.concatenate([token, patches.reshape(1, n * n, -1)], axis=1)


def positions_matrix(grid: int, n: int) -> np.ndarray:
    """Returns the bicubic weights [n, grid] of one axis.

    Each output mixes four patches; beyond the edge the patch at the edge is repeated.
    """
    at = (np.arange(n) + 0.5) * grid / (n + OFFSET) - 0.5
    matrix = np.zeros((n, grid))
    for tap in range(-1, 3):
        place = np.floor(at).astype(int) + tap
        weight = dinov2.cubic(at - place, CUBIC)
        np.add.at(matrix, (np.arange(n), np.clip(place, 0, grid - 1)), weight)
    return matrix
