"""Compares our networks with fixtures, which hold recorded outputs of the official networks.

A fixture is an npz file. One of an EDM or EDM2 network holds
- `config_json`: the arguments of EDM's `EDMPrecond` or EDM2's `Precond`;
- `param/<official name>`: the weights;
- the inputs and the official outputs, images as [B,C,H,W].

A fixture of the FID Inception holds no weights. Its `config_json` lists their names and shapes and
states the rule by which they are drawn; `read_rule` reads the rule and `made_up` draws the weights.
Its images may have several sizes, one group of arrays for each.
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
from cm_jax.errors import UserError, damage_is_one_line, shown
from cm_jax.models import edm2_unet, inception
from cm_jax.models.presets import Preset
from cm_jax.types import Array, Key, Params
from cm_jax.weights import inception as inception_file
from cm_jax.weights import names
from cm_jax.weights.arguments import network_of
from cm_jax.weights.read import read_tensors

PREFIX = 'param/'
GRADIENT = 'grad_mean_sq_wrt_x_nchw'
NEEDED = ('x_nchw', 'sigma', 'denoised_nchw', GRADIENT)
TOLERANCE = 1e-4  # of outputs, relative to the largest absolute value of the reference
GRADIENT_TOLERANCE = 1e-3
RESIZED = re.compile(r'resized_299_every_(\d+)(?:st|nd|rd|th)')
RESIZE_TOLERANCE = 1e-5
OUTPUTS = (*inception.TAPS, 'logits_unbiased', 'logits')
IMAGES = 'images_uint8_nchw'
NUMBER = r'(\d+(?:\.\d+)?)'
RULE = {  # how a fixture states each part of its rule, without spaces
    'seed': r'default_rng\(\[(\d+),zlib\.crc32\(name\.encode\(\)\)\]\)',
    'var': rf'running_var:{NUMBER}\+{NUMBER}\|n\|',
    'scale': rf'bn\.weight:{NUMBER}\+{NUMBER}n',
    'gain': rf'ndim>=2:n\*sqrt\({NUMBER}/prod\(shape\[1:\]\)\)',
    'rest': rf'other1-d:{NUMBER}n',
}


class Rule(NamedTuple):
    """How the weights of an Inception's fixture are drawn.

    n are normal numbers from a generator that is seeded by `seed` and the name of the tensor.
    """

    seed: tuple[int, ...]
    var: tuple[float, ...]  # (a, b): running variances are a + b |n|
    scale: tuple[float, ...]  # (a, b): the weights of batch normalisation are a + b n
    gain: tuple[float, ...]  # (gain,): kernels are sqrt(gain / inputs) n
    rest: tuple[float, ...]  # (factor,): biases and running means are factor n


def read_rule(text: str) -> Rule:
    """Returns the rule that a fixture's `config_json` states.

    Raises UserError if a part of it is missing or written in another form than RULE's.
    """
    text = ''.join(text.split())
    numbers = {}
    for part, pattern in RULE.items():
        match = re.search(pattern, text)
        if match is None:
            raise UserError(
                f'the rule of its weights does not tell {part} in a form that is known here'
            )
        numbers[part] = match.groups()
    return Rule(
        seed=tuple(map(int, numbers['seed'])),
        var=tuple(map(float, numbers['var'])),
        scale=tuple(map(float, numbers['scale'])),
        gain=tuple(map(float, numbers['gain'])),
        rest=tuple(map(float, numbers['rest'])),
    )


class Difference(NamedTuple):
    """The largest error of one array, relative to the largest absolute value of its reference."""

    name: str
    error: float
    tolerance: float


def check(path: str | pathlib.Path) -> list[Difference]:
    """Runs our network on a fixture's inputs and returns the differences from its recorded outputs.

    Raises UserError if the file is no fixture, is incomplete, or is of a network that is not ours.
    """
    arrays, metadata = read_tensors(path)
    with damage_is_one_line(path, 'is no whole fixture of a network'):
        if any(name.endswith(f'/{IMAGES}') for name in arrays):
            return _check_inception(path, arrays, metadata)
        return _check_network(path, arrays, metadata)


def _check_network(
    path: str | pathlib.Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]
) -> list[Difference]:
    """Returns the differences of a network of EDM or EDM2. Raises UserError as `check` does."""
    for name in ('config_json', *NEEDED):
        if name not in {**metadata, **arrays}:
            raise UserError(f'{path} is no fixture of a network: it has no {name}')
    arguments = json.loads(metadata['config_json'])
    state = {
        name.removeprefix(PREFIX): value
        for name, value in arrays.items()
        if name.startswith(PREFIX)
    }
    try:
        network = network_of(arguments, names.layout_of(state))
        params = names.to_params(
            state, network.settings, network.image_shape, network.num_classes, network.layout
        )
    except UserError as error:
        raise UserError(f'{path}: {error}') from error
    label = _label(path, arrays, network.num_classes)
    outputs = _outputs(network, params, arrays, label, arguments.get('sigma_data', 0.5))
    return [_difference(name, value, arrays[name]) for name, value in outputs.items()]


def _outputs(
    network: Preset,
    params: Params,
    arrays: Mapping[str, np.ndarray],
    label: Array | None,
    sigma_data: float,
) -> dict[str, Array]:
    """Returns what our network gives for a fixture's inputs, by the names of the recorded outputs."""
    model = models.build(network.settings, network.image_shape, network.num_classes)
    augment = arrays.get('augment_labels')

    def net(
        params: Params, x: Array, cond: Array, label: Array | None = None, key: Key | None = None
    ) -> Array:
        if augment is not None:
            cond = jnp.concatenate([cond, augment], axis=1)
        return model.net(params, x, cond, label, key)

    denoise = precondition(net, lambda t: edm_scalings(t, sigma_data))
    images, t = arrays['x_nchw'].transpose(0, 2, 3, 1), jnp.asarray(arrays['sigma'])
    cond = jnp.asarray((np.log(arrays['sigma']) / 4)[:, None])

    def mean_square(x: Array) -> tuple[Array, Array]:
        x0_hat = denoise(params, x, t, label, None)
        return jnp.mean(x0_hat**2), x0_hat

    (_, x0_hat), gradient = jax.jit(jax.value_and_grad(mean_square, has_aux=True))(images)
    outputs = {'denoised_nchw': x0_hat, GRADIENT: gradient}
    if 'raw_F_of_x_cnoise_nchw' in arrays:
        outputs['raw_F_of_x_cnoise_nchw'] = jax.jit(net)(params, images, cond, label, None)
    if 'logvar' in arrays:
        outputs['logvar'] = edm2_unet.log_variance(params, cond)
    return outputs


def _difference(name: str, ours: Array, reference: np.ndarray) -> Difference:
    """Returns the difference of one of our arrays from its reference, by the recorded name.

    The error is infinite if any value is not finite, and absolute if the reference is all zeros.
    Images are [B,H,W,C] in `ours` and [B,C,H,W] in `reference`.
    """
    if ours.ndim == 4:
        reference = reference.transpose(0, 2, 3, 1)
    scale = np.max(np.abs(reference)) or 1.0
    error = float(np.max(np.abs(ours - reference)) / scale)
    tolerance = GRADIENT_TOLERANCE if name == GRADIENT else TOLERANCE
    tolerance = RESIZE_TOLERANCE if RESIZED.fullmatch(name.split('/')[-1]) else tolerance
    return Difference(
        name=name, error=error if math.isfinite(error) else math.inf, tolerance=tolerance
    )


def made_up(shapes: Mapping[str, Any], rule: Rule) -> dict[str, np.ndarray]:
    """Draws the weights of an Inception's fixture by its rule; returns them by name, float32.

    `shapes` gives the shape of each tensor. The counts of batches among them are left out.
    """
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


def _check_inception(
    path: str | pathlib.Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]
) -> list[Difference]:
    """Returns the differences in features, logits and resized images, for the images of each size.

    Raises UserError as `check` does.
    """
    config = json.loads(metadata.get('config_json', '{}'))
    shapes, rule = (config.get(key) for key in ('shapes', 'weights'))
    if not isinstance(shapes, dict) or not isinstance(rule, str):
        raise UserError(
            f'{path} is no fixture of the FID Inception: its config_json has no shapes or no weights'
        )
    official = inception_file.official_shapes()
    for name, shape in shapes.items():
        if not name.endswith(inception_file.UNREAD) and tuple(shape) != official.get(name):
            raise UserError(
                f'{path} has the shape {shown(shape)} of {shown(name)} in its config_json'
            )
    try:
        params = inception_file.to_params(made_up(shapes, read_rule(rule)))
    except UserError as error:
        raise UserError(f'{path}: {error}') from error
    program = jax.jit(inception.Inception().apply)
    differences: list[Difference] = []
    for name in sorted(name for name in arrays if name.endswith(f'/{IMAGES}')):
        size = name.removesuffix(IMAGES)
        images = arrays[name].transpose(0, 2, 3, 1).astype(np.float32)
        inputs = inception.to_input(jnp.asarray(images / 127.5 - 1))
        ours = dict(program({'params': params}, inputs))
        recorded = [key.removeprefix(size) for key in arrays if key.startswith(size)]
        for key in recorded:
            match = RESIZED.fullmatch(key)
            if match:
                every = int(match[1])
                ours[key] = inception.resize(jnp.asarray(images))[:, ::every, ::every]
        _check_recorded(path, size, recorded, list(ours))
        differences += [
            _difference(size + key, ours[key], arrays[size + key])
            for key in recorded
            if key != IMAGES
        ]
    return differences


def _check_recorded(
    path: str | pathlib.Path, size: str, recorded: list[str], legal: list[str]
) -> None:
    """Raises UserError if the arrays recorded for one size of images lack one or are unknown.

    `legal` are the names of the arrays that our network gives.
    """
    missing = [key for key in OUTPUTS if key not in recorded]
    if not any(map(RESIZED.fullmatch, recorded)):
        missing.append('resized_299_every_<n>th')
    if missing:
        raise UserError(
            f'{path} is an incomplete fixture of the FID Inception: it has no {size}{missing[0]}'
        )
    unknown = sorted({*recorded} - {*legal, IMAGES})
    if unknown:
        raise UserError(
            f'{path} has {size}{unknown[0]}, which nothing here gives; legal: {", ".join(legal)}'
        )


def _label(
    path: str | pathlib.Path, arrays: Mapping[str, np.ndarray], num_classes: int
) -> Array | None:
    """Returns a fixture's labels [B]: the class of each one-hot row, or -1 (no class) for zeros.

    Returns None if the fixture has no labels or the network no classes. Raises UserError if a row is
    not one-hot.
    """
    one_hot = arrays.get('class_labels')
    if one_hot is None or not num_classes:
        return None
    if not np.isin(one_hot, (0, 1)).all() or (one_hot.sum(1) > 1).any():
        raise UserError(f'{path} has class_labels that are not one-hot')
    return jnp.asarray(np.where(one_hot.any(1), one_hot.argmax(1), -1))
