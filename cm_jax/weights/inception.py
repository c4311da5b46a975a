"""The FID Inception from a file of its public weights: `load(path) -> Extractor`.

It reads the state dict of pytorch-fid (`pt_inception-2015-12-05-6726825d.pth`) and of torch-fidelity
(`weights-inception-2015-12-05-6726825d.pth`), in any format of weights/read.py:

    Conv2d_1a_3x3.conv.weight [O,I,H,W], .bn.{weight,bias,running_mean,running_var} ...
    Mixed_5b.branch1x1.conv.weight ...
    fc.weight [1008,2048], fc.bias

Batch normalisation is folded into the convolution before it; that is computed in float64.
"""

import pathlib
from collections.abc import Mapping

import numpy as np

from cm_jax.core import tree
from cm_jax.errors import UserError
from cm_jax.files import expanded, sha256
from cm_jax.models import inception
from cm_jax.types import Extractor, Params
from cm_jax.weights.read import read_tensors
from cm_jax.weights.shapes import check_shapes

NAME = 'inception'
EPS = 1e-3  # added to the variance in batch normalisation
NORM = ('weight', 'bias', 'running_mean', 'running_var')
UNREAD = '.num_batches_tracked'
FC = {'fc_kernel': 'fc.weight', 'fc_bias': 'fc.bias'}


def load(path: str | pathlib.Path) -> Extractor:
    """Returns the feature extractor of a weights file; its parameters are numpy arrays on the host.

    Its checksum is that of the file. Raises UserError, in one line, if the file is missing or damaged,
    or a tensor is missing, unexpected, of the wrong shape or not finite.
    """
    if not isinstance(path, str | pathlib.Path) or not str(path):
        raise UserError(
            f'the extractor {NAME!r} needs the file of its weights '
            f'(pt_inception-2015-12-05-6726825d.pth or another format), got {path!r}'
        )
    path = pathlib.Path(expanded(path))
    state, _ = read_tensors(path)
    try:
        params = to_params(state)
    except UserError as error:
        raise UserError(f'{path}: {error}') from None
    return Extractor(
        name=NAME,
        score='fid',
        dim=inception.DIM,
        apply=inception.features,
        params=params,
        logits=inception.logits,
        checksum=sha256(path),
        resize=inception.RESIZE,
    )


def official_shapes() -> dict[str, tuple[int, ...]]:
    """Returns the shape of every tensor that is read, by its official name."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path, leaf in tree.flatten(inception.shapes()).items():
        *modules, last = path
        if last in FC:
            shapes[FC[last]] = leaf.shape[::-1]
        elif last == 'kernel':
            name = '.'.join(modules)
            shapes[f'{name}.conv.weight'] = (*leaf.shape[:-3:-1], *leaf.shape[:-2])
            shapes |= {f'{name}.bn.{part}': leaf.shape[-1:] for part in NORM}
    return shapes


def to_params(state: Mapping[str, np.ndarray]) -> Params:
    """Returns our parameters, float32 on the host, from an official state dict.

    Raises UserError as `load` does, if a tensor is wrong.
    """
    state = {name: value for name, value in state.items() if not name.endswith(UNREAD)}
    check_shapes(state, official_shapes(), {}, 'the FID Inception')
    for name, value in state.items():
        if not np.isfinite(value).all():
            raise UserError(f'{name} has values that are not finite')
        if name.endswith('running_var') and value.min() < 0:
            raise UserError(f'{name} has the value {value.min():.3g}; variances are >= 0')
    flat: dict[tuple[str, ...], np.ndarray] = {}
    for name in state:
        module, _, end = name.rpartition('.conv.')
        if end == 'weight':
            norm = [state[f'{module}.bn.{part}'] for part in NORM]
            kernel, bias = folded(state[name], *norm)
            path = tuple(module.split('.'))
            flat |= {(*path, 'kernel'): kernel, (*path, 'bias'): bias}
    for ours, theirs in FC.items():
        flat[(ours,)] = np.asarray(state[theirs], np.float32).T.copy()
    return tree.unflatten(flat)


def folded(
    kernel: np.ndarray, scale: np.ndarray, shift: np.ndarray, mean: np.ndarray, var: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Folds a batch normalisation into the convolution before it.

    Returns the (kernel [H,W,I,O], bias [O]) of a convolution that computes
    scale (conv(x) - mean) / sqrt(var + EPS) + shift, where `kernel` [O,I,H,W] is that of conv.
    """
    scale, shift, mean, var = (np.asarray(v, np.float64) for v in (scale, shift, mean, var))
    gain = scale / np.sqrt(var + EPS)
    kernel = np.asarray(kernel, np.float64).transpose(2, 3, 1, 0) * gain[None, None, None]
    return kernel.astype(np.float32), (shift - mean * gain).astype(np.float32)
