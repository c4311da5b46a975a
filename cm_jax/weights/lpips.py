"""LPIPS from the files of its public weights: `load(...) -> Distance`.

    file       what it is                            names of its tensors
    features   torchvision's vgg16 or alexnet        features.0.weight ...; classifier... is not read
    heads      lpips/weights/v0.1/<network>.pth      lin0.model.1.weight [1,C,1,1] ...
    either     state dict of the whole lpips.LPIPS   net.slice1.0.weight, lins.0.model.1.weight,
                                                     scaling_layer.shift ...

A file may hold more than is read from it, under these names and no others; one file can be both.
"""

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from cm_jax.core import tree
from cm_jax.errors import UserError, build_from
from cm_jax.files import sha256
from cm_jax.models import lpips
from cm_jax.types import Distance, Params
from cm_jax.weights.names import check_shapes
from cm_jax.weights.read import read_tensors

CLASSIFIER = 'classifier.'  # torchvision's last layers
CONSTANTS = {'scaling_layer.shift': lpips.SHIFT, 'scaling_layer.scale': lpips.SCALE}
LEAVES = {'kernel': 'weight', 'bias': 'bias'}


def distance_of(settings: Mapping[str, Any]) -> Distance:
    """The LPIPS of a config's `lpips` section: the keyword arguments of `load`."""
    return build_from('lpips', load, settings)


def load(
    network: str,
    features: str | pathlib.Path,
    heads: str | pathlib.Path,
    pooling: str = 'max',
    precision: str = 'highest',
) -> Distance:
    """LPIPS with the weights of two files, as numpy arrays on the host.

    Args:
      network: 'vgg' or 'alex'.
      features, heads: paths, in any format of weights/read.py.
      pooling: 'max', or 'average' as in OpenAI's consistency models.
      precision: of the convolutions, see models/lpips.py.

    Raises UserError, one line, on an unknown name, a file that is missing or damaged, and a tensor
    that is missing, unexpected, of the wrong shape, not finite, or of a head and negative.
    """
    apply = lpips.build(network, pooling, precision)
    files = {'features': features, 'heads': heads}
    for part, path in files.items():
        if not isinstance(path, str | pathlib.Path) or not str(path):
            raise UserError(f'LPIPS needs the path of the file of its {part}, got {path!r}')
    params = {}
    for part, path in files.items():
        state, _ = read_tensors(path)
        try:
            params |= to_params(state, network, part)
        except UserError as error:
            raise UserError(f'{path}: {error}') from None
    name = f'lpips_{network}' if pooling == 'max' else f'lpips_{network}_{pooling}_pooling'
    return Distance(name, apply, params, {k: sha256(pathlib.Path(v)) for k, v in files.items()})


def to_params(state: Mapping[str, np.ndarray], network: str, part: str) -> Params:
    """One part of our parameters, 'features' or 'heads', from a state dict of the module's table.

    Raises UserError as `load`.
    """
    tensors = tensors_of(network)
    names = {tensor.alias: tensor.name for tensor in tensors}
    found = {}
    for given, value in state.items():
        name = names.get(given, given)
        if name in found and not np.array_equal(found[name], value):
            raise UserError(f'{name} is there twice, the second time as {given}, and differs')
        found[name] = value
    for name, value in CONSTANTS.items():
        if name in found and not np.allclose(np.ravel(found[name]), value, atol=1e-5):
            raise UserError(f'{name} is not that of version 0.1, {value}')
    wanted = {tensor.name: tensor for tensor in tensors if tensor.part == part}
    unread = {tensor.name for tensor in tensors} - set(wanted) | set(CONSTANTS)
    read = {k: v for k, v in found.items() if k not in unread and not k.startswith(CLASSIFIER)}
    shapes = {name: tensor.official_shape for name, tensor in wanted.items()}
    check_shapes(read, shapes, {}, f'the {part} of LPIPS {network!r}')
    return tree.unflatten({tensor.path: tensor.to_ours(read[n]) for n, tensor in wanted.items()})


class Tensor(NamedTuple):
    """One tensor: its path in our parameters, the shape there, and its two official names."""

    path: tuple[str, ...]
    shape: tuple[int, ...]
    name: str
    alias: str  # in the whole module

    @property
    def part(self) -> str:
        return 'features' if self.path[0] == 'features' else 'heads'

    @property
    def official_shape(self) -> tuple[int, ...]:
        if self.part == 'heads':
            return (1, *self.shape, 1, 1)
        return (*self.shape[:-3:-1], *self.shape[:-2])  # OIHW of HWIO

    def to_ours(self, value: np.ndarray) -> np.ndarray:
        """Official layout -> ours, float32. Raises UserError on a value that cannot be."""
        value = np.asarray(value).astype(np.float32)
        if not np.isfinite(value).all():
            raise UserError(f'{self.name} has values that are not finite')
        if self.part == 'heads' and value.min() < 0:
            raise UserError(f'{self.name} has the value {value.min():.3g}; heads are >= 0')
        value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value
        return np.array(value.reshape(self.shape), order='C')


def tensors_of(network: str) -> list[Tensor]:
    """Every tensor of an LPIPS, of lpips.NETWORKS."""
    shapes = tree.flatten(lpips.shapes(network))
    tensors = []
    for i, stage in enumerate(lpips.NETWORKS[network]):
        rows = [((f'head{i}',), f'lin{i}.model.1.weight', f'lins.{i}.model.1.weight')]
        for conv in stage.convs:
            for leaf, theirs in LEAVES.items():
                end = f'{conv.index}.{theirs}'
                path = ('features', f'conv{conv.index}', leaf)
                rows.append((path, f'features.{end}', f'net.slice{i + 1}.{end}'))
        tensors += [Tensor(path, shapes[path].shape, *names) for path, *names in rows]
    return tensors
