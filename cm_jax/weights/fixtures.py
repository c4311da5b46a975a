"""Fixtures: outputs of the papers' own networks, and how far ours are from them.

A fixture is an npz file: `config_json` with the arguments of EDM's `EDMPrecond` or EDM2's `Precond`,
`param/<official name>`, inputs and what the official code made of them, as [B,C,H,W]. One of the FID
Inception has the names and shapes of its weights in `config_json` instead, and the rule that makes
them, whose numbers are read from there: `made_up` follows it. Its images may be of any sizes.
"""

import json
import math
import pathlib
import re
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
RESIZED = re.compile(r'resized_299_every_(\d+)(?:st|nd|rd|th)')
RESIZE_TOLERANCE = 1e-5
OUTPUTS = (*inception.TAPS, 'logits_unbiased', 'logits')
IMAGES = 'images_uint8_nchw'
NUMBER = r'(\d+(?:\.\d+)?)'
RULE = {  # of made-up weights; spaces do not count
    'seed': r'default_rng\(\[(\d+),zlib\.crc32\(name\.encode\(\)\)\]\)',
    'var': rf'running_var:{NUMBER}\+{NUMBER}\|n\|',
    'scale': rf'bn\.weight:{NUMBER}\+{NUMBER}n',
    'gain': rf'ndim>=2:n\*sqrt\({NUMBER}/prod\(shape\[1:\]\)\)',
    'rest': rf'other1-d:{NUMBER}n',
}


class Rule(NamedTuple):
    """How the weights of an Inception's fixture are made of normal numbers n, seeded by name."""

    seed: tuple[int]
    var: tuple[float, float]  # a + b |n|
    scale: tuple[float, float]  # a + b n
    gain: tuple[float]  # sqrt(gain / inputs) n, of kernels
    rest: tuple[float]  # rest n, of biases and means


def read_rule(text: str) -> Rule:
    """The rule written in a fixture's `config_json`. Raises UserError on one of another form."""
    found, text = {}, ''.join(text.split())
    for key, pattern in RULE.items():
        match = re.search(pattern, text)
        if match is None:
            raise UserError(
                f'the rule of its weights does not tell {key} in the form that is known'
            )
        kind = int if key == 'seed' else float
        found[key] = tuple(map(kind, match.groups()))
    return Rule(**found)


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
    tolerance = GRADIENT_TOLERANCE if name == GRADIENT else TOLERANCE
    tolerance = RESIZE_TOLERANCE if RESIZED.fullmatch(name.split('/')[-1]) else tolerance
    return Difference(name, error if math.isfinite(error) else math.inf, tolerance)


def made_up(shapes: Mapping[str, Any], rule: Rule) -> dict[str, np.ndarray]:
    """The weights of an Inception's fixture, by name, float32; counts of batches are left out."""
    state = {}
    for name, shape in shapes.items():
        if name.endswith(inception_file.UNREAD):
            continue
        n = np.random.default_rng([*rule.seed, zlib.crc32(name.encode())]).standard_normal(shape)
        if name.endswith('running_var'):
            n = rule.var[0] + rule.var[1] * np.abs(n)
        elif name.endswith('bn.weight'):
            n = rule.scale[0] + rule.scale[1] * n
        else:
            n = n * (np.sqrt(rule.gain[0] / np.prod(shape[1:])) if n.ndim >= 2 else rule.rest[0])
        state[name] = n.astype(np.float32)
    return state


def _check_inception(path: Any, arrays: Mapping[str, np.ndarray], metadata: Mapping) -> list:
    """Features and logits of images of each size, and their resize."""
    config = json.loads(metadata.get('config_json', '{}'))
    shapes, rule = (config.get(key) for key in ('shapes', 'weights'))
    if not isinstance(shapes, dict) or not isinstance(rule, str):
        raise UserError(
            f'{path} is no fixture of the FID Inception: its config_json has no shapes or no weights'
        )
    try:
        params = inception_file.to_params(made_up(shapes, read_rule(rule)))
    except UserError as error:
        raise UserError(f'{path}: {error}') from error
    program, differences = jax.jit(inception.Inception().apply), []
    for name in sorted(name for name in arrays if name.endswith(f'/{IMAGES}')):
        size = name.removesuffix(IMAGES)
        images = arrays[name].transpose(0, 2, 3, 1).astype(np.float32)
        found = dict(program({'params': params}, inception.to_input(images / 127.5 - 1)))
        recorded = [key.removeprefix(size) for key in arrays if key.startswith(size)]
        for key, match in ((key, RESIZED.fullmatch(key)) for key in recorded):
            if match:
                every = int(match[1])
                found[key] = inception.resize(images)[:, ::every, ::every]
        missing = [key for key in OUTPUTS if key not in recorded]
        if not any(map(RESIZED.fullmatch, recorded)):
            missing.append('resized_299_every_<n>th')
        if missing:
            raise UserError(
                f'{path} is no whole fixture of the FID Inception: it has no {size}{missing[0]}'
            )
        unknown = sorted({*recorded} - {*found, IMAGES})
        if unknown:
            raise UserError(
                f'{path} has {size}{unknown[0]}, which nothing here gives; legal: {", ".join(found)}'
            )
        differences += [
            _difference(size + key, found[key], arrays[size + key])
            for key in recorded
            if key != IMAGES
        ]
    return differences


def _label(path: Any, arrays: Mapping[str, np.ndarray], num_classes: int) -> np.ndarray | None:
    """One-hot rows as classes; a row of zeros is -1, no class."""
    one_hot = arrays.get('class_labels')
    if one_hot is None or not num_classes:
        return None
    if not np.isin(one_hot, (0, 1)).all() or (one_hot.sum(1) > 1).any():
        raise UserError(f'{path} has class_labels that are not one-hot')
    return np.where(one_hot.any(1), one_hot.argmax(1), -1)
