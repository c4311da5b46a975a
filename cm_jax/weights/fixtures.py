"""Fixtures: outputs of the papers' own networks, and how far ours are from them.

A fixture is an npz file: `config_json` with the arguments of EDM's `EDMPrecond` or EDM2's `Precond`,
`param/<official name>`, inputs and what the official code made of them, as [B,C,H,W]. That of the FID
Inception has the names and shapes of its weights in `config_json` instead: `made_up` is their rule.
"""

import json
import math
import pathlib
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cm_jax import models
from cm_jax.core.precond import edm_scalings, precondition
from cm_jax.errors import UserError
from cm_jax.models import edm2_unet, inception
from cm_jax.types import Array, Params
from cm_jax.weights import inception as inception_file
from cm_jax.weights import names
from cm_jax.weights.arguments import network_of
from cm_jax.weights.read import read_tensors

PREFIX = 'param/'
GRADIENT = 'grad_mean_sq_wrt_x_nchw'
NEEDED = ('x_nchw', 'sigma', 'denoised_nchw', GRADIENT)
TOLERANCE = 1e-4  # of outputs, relative to the largest reference value
GRADIENT_TOLERANCE = 1e-3
RESIZED = 'resized_299_every_23rd'
RESIZE_TOLERANCE = 1e-5
IMAGES = 'images_uint8_nchw'


class Difference(NamedTuple):
    """How far one array is from its reference, relative to the reference's largest value."""

    name: str
    error: float
    tolerance: float


def check(path: str | pathlib.Path) -> list[Difference]:
    """The differences of one fixture. Raises UserError if it is none, or names no network of ours."""
    arrays, metadata = read_tensors(path)
    if any(name.endswith(f'/{IMAGES}') for name in arrays):
        return _check_inception(path, arrays, metadata)
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
    tolerances = {GRADIENT: GRADIENT_TOLERANCE, RESIZED: RESIZE_TOLERANCE}
    tolerance = tolerances.get(name.split('/')[-1], TOLERANCE)
    return Difference(name, error if math.isfinite(error) else math.inf, tolerance)


def made_up(shapes: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The weights of the Inception's fixture, by name: normal numbers, seeded by the name.

    Convolutions are scaled by sqrt(2 / inputs); variances are 1 + 0.2 |n|, scales 1 + 0.1 n.
    """
    state = {}
    for name, shape in shapes.items():
        if name.endswith(inception_file.UNREAD):
            continue
        n = np.random.default_rng([61, zlib.crc32(name.encode())]).standard_normal(shape)
        if name.endswith('running_var'):
            n = 1 + 0.2 * np.abs(n)
        elif name.endswith('bn.weight'):
            n = 1 + 0.1 * n
        else:
            n = n * (np.sqrt(2 / np.prod(shape[1:])) if n.ndim >= 2 else 0.1)
        state[name] = n.astype(np.float32)
    return state


def _check_inception(path: Any, arrays: Mapping[str, np.ndarray], metadata: Mapping) -> list:
    """Features and logits of images of each size, and their resize."""
    shapes = json.loads(metadata.get('config_json', '{}')).get('shapes')
    if not isinstance(shapes, dict):
        raise UserError(f'{path} is no fixture of the FID Inception: its config_json has no shapes')
    try:
        params = inception_file.to_params(made_up(shapes))
    except UserError as error:
        raise UserError(f'{path}: {error}') from error
    program, found = jax.jit(inception.Inception().apply), {}
    for name in sorted(name for name in arrays if name.endswith(f'/{IMAGES}')):
        size = name.removesuffix(IMAGES)
        images = arrays[name].transpose(0, 2, 3, 1).astype(np.float32)
        found[size + RESIZED] = inception.resize(images)[:, ::23, ::23]
        outputs = program({'params': params}, inception.to_input(images / 127.5 - 1))
        found |= {size + key: value for key, value in outputs.items()}
    missing = [name for name in found if name not in arrays]
    if missing:
        raise UserError(f'{path} is no whole fixture of the FID Inception: it has no {missing[0]}')
    return [_difference(name, value, arrays[name]) for name, value in found.items()]


def _label(path: Any, arrays: Mapping[str, np.ndarray], num_classes: int) -> np.ndarray | None:
    """One-hot rows as classes; a row of zeros is -1, no class."""
    one_hot = arrays.get('class_labels')
    if one_hot is None or not num_classes:
        return None
    if not np.isin(one_hot, (0, 1)).all() or (one_hot.sum(1) > 1).any():
        raise UserError(f'{path} has class_labels that are not one-hot')
    return np.where(one_hot.any(1), one_hot.argmax(1), -1)
