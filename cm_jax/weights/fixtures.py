"""Fixtures: outputs of the papers' own networks, and how far ours are from them.

A fixture is an npz file: `config_json` with the arguments of EDM's `EDMPrecond` or EDM2's `Precond`,
`param/<official name>`, inputs and what the official code made of them, as [B,C,H,W].
"""

import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cm_jax import models
from cm_jax.core.precond import edm_scalings, precondition
from cm_jax.errors import UserError
from cm_jax.models import edm2_unet
from cm_jax.types import Array, Params
from cm_jax.weights import names
from cm_jax.weights.arguments import network_of
from cm_jax.weights.read import read_tensors

PREFIX = 'param/'
GRADIENT = 'grad_mean_sq_wrt_x_nchw'
NEEDED = ('x_nchw', 'sigma', 'denoised_nchw', GRADIENT)
TOLERANCE = 1e-4  # of outputs, relative to the largest reference value
GRADIENT_TOLERANCE = 1e-3


class Difference(NamedTuple):
    """How far one array is from its reference, relative to the reference's largest value."""

    name: str
    error: float
    tolerance: float


def check(path: str | pathlib.Path) -> list[Difference]:
    """The differences of one fixture. Raises UserError if it is none, or names no network of ours."""
    arrays, metadata = read_tensors(path)
    for name in ('config_json', *NEEDED):
        if name not in metadata | arrays:
            raise UserError(f'{path} is no fixture of a network: it has no {name}')
    arguments = json.loads(metadata['config_json'])
    state = {k.removeprefix(PREFIX): v for k, v in arrays.items() if k.startswith(PREFIX)}
    try:
        network = network_of(arguments, names.layout_of(state))
        params = names.to_params(state, *network)
    except UserError as error:
        raise UserError(f'{path}: {error}') from error
    model = models.build(network.settings, network.image_shape, network.num_classes)
    label, augment = _label(path, arrays, network.num_classes), arrays.get('augment_labels')

    def net(params: Params, x: Array, cond: Array, label: Array | None, key: None) -> Array:
        if augment is not None:
            cond = jnp.concatenate([cond, augment], axis=1)
        return model.net(params, x, cond, label, key)

    sigma_data = arguments.get('sigma_data', 0.5)
    denoise = precondition(net, lambda t: edm_scalings(t, sigma_data))
    x, t = arrays['x_nchw'].transpose(0, 2, 3, 1), arrays['sigma']
    cond = (np.log(t) / 4)[:, None]

    def mean_square(x: Array) -> tuple[Array, Array]:
        x0_hat = denoise(params, x, t, label, None)
        return jnp.mean(x0_hat**2), x0_hat

    (_, x0_hat), gradient = jax.jit(jax.value_and_grad(mean_square, has_aux=True))(x)
    found = {'denoised_nchw': x0_hat, GRADIENT: gradient}
    if 'raw_F_of_x_cnoise_nchw' in arrays:
        found['raw_F_of_x_cnoise_nchw'] = jax.jit(net)(params, x, cond, label, None)
    if 'logvar' in arrays:
        found['logvar'] = edm2_unet.log_variance(params, cond)
    return [_difference(name, value, arrays[name]) for name, value in found.items()]


def _difference(name: str, found: Array, reference: np.ndarray) -> Difference:
    """NaN is as far as can be; a reference of zeros is compared absolutely."""
    if found.ndim == 4:
        reference = reference.transpose(0, 2, 3, 1)
    scale = np.max(np.abs(reference)) or 1.0
    error = float(np.max(np.abs(found - reference)) / scale)
    tolerance = GRADIENT_TOLERANCE if name == GRADIENT else TOLERANCE
    return Difference(name, error if math.isfinite(error) else math.inf, tolerance)


def _label(path: Any, arrays: Mapping[str, np.ndarray], num_classes: int) -> np.ndarray | None:
    """One-hot rows as classes; a row of zeros is -1, no class."""
    one_hot = arrays.get('class_labels')
    if one_hot is None or not num_classes:
        return None
    if not np.isin(one_hot, (0, 1)).all() or (one_hot.sum(1) > 1).any():
        raise UserError(f'{path} has class_labels that are not one-hot')
    return np.where(one_hot.any(1), one_hot.argmax(1), -1)
