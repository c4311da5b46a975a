"""The compiled samplers and the compiled denoiser of a run, and what a user may start them from."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from cm_jax import sharding
from cm_jax.core.process import Process
from cm_jax.errors import UserError, shown
from cm_jax.generate import build_sampler, make_generator
from cm_jax.metrics.features import to_bytes
from cm_jax.samplers import GenerativeModel
from cm_jax.terminal import progress
from cm_jax.types import Params

BATCH = 256  # samples that one program makes

Labels = int | np.ndarray  # a class for all images, or one for each


def compile_sampler(model: GenerativeModel, spec: str, batch: int, rule: str) -> Callable[..., Any]:
    """Returns what `make_generator` does, for `batch` samples that are rounded to bytes by `rule`."""
    finish = functools.partial(to_bytes, rule=rule)
    return make_generator(model, build_sampler(spec, model), sharding.make_mesh(), batch, finish)


def generate(
    program: Callable[..., Any], params: Params, seed: int, count: int, given: dict[str, np.ndarray]
) -> np.ndarray:
    """Returns `count` samples of a compiled sampler, in batches of at most BATCH: uint8 [count,H,W,C].

    `given` is what `starts` returns.
    """
    parts, firsts = [], range(0, count, BATCH)
    for first in progress(firsts, len(firsts), 'sampling:', 'batches', leave=False):
        rows = {name: array[first : first + BATCH] for name, array in given.items()}
        parts.append(program(params, seed, first, **rows))
    return np.concatenate(parts)[:count]


def starts(
    model: GenerativeModel, count: int, labels: Labels | None, noise: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Returns the fields of `samplers.Start` that a user gives, for `count` samples.

    `labels` is a class, or one for each sample; `noise` is eps [count,H,W,C], of which x_T =
    prior_std eps. Raises UserError on what does not fit the model.
    """
    given = {}
    if labels is not None:
        given['label'] = check_labels(model, count, labels)
    if noise is not None:
        eps, shape = np.asarray(noise, np.float32), (count, *model.image_shape)
        if eps.shape != shape or not np.isfinite(eps).all():
            raise UserError(f'noise must be finite numbers of shape {shape}, got shape {eps.shape}')
        given['x_T'] = np.float32(model.process.prior_std) * eps
    return given


def check_labels(model: GenerativeModel, count: int, labels: Labels) -> np.ndarray:
    """Returns the classes [count] int32 that a user gives. Raises UserError if they are no classes."""
    if not model.num_classes:
        raise UserError(f'labels={shown(labels)}: the network has no classes; leave them out')
    found = np.asarray(labels)
    is_whole = found.dtype.kind in 'iu' and found.shape in ((), (count,))
    if not is_whole or found.min() < 0 or found.max() >= model.num_classes:
        raise UserError(
            f'labels must be a class, or {count} of them, from 0 to {model.num_classes - 1}; got '
            f'{shown(labels)}'
        )
    return np.broadcast_to(found.astype(np.int32), count)


def check_level(process: Process, count: int, t: float | np.ndarray) -> np.ndarray:
    """Returns noise levels [count] float32. Raises UserError unless all lie in [t_min, t_max]."""
    low, high, levels = process.t_min, process.t_max, np.asarray(t, np.float32)
    is_inside = (levels >= low * (1 - 1e-6)) & (levels <= high * (1 + 1e-6))
    if levels.shape not in ((), (count,)) or not is_inside.all():
        raise UserError(
            f'the noise level must be a number, or {count} of them, in [{low:g}, {high:g}]; got '
            f'{shown(t)}'
        )
    return np.broadcast_to(levels, count)


def denoise(
    program: Callable[..., Any],
    model: GenerativeModel,
    params: Params,
    x: np.ndarray,
    t: float | np.ndarray,
    labels: Labels | None,
) -> np.ndarray:
    """Returns the estimate of x0 by the compiled denoiser; see `Run.denoise`."""
    images = np.asarray(x, np.float32)
    if images.ndim != 4 or images.shape[1:] != model.image_shape or not len(images):
        raise UserError(
            f'x must be images [B, {", ".join(map(str, model.image_shape))}], got shape '
            f'{images.shape}'
        )
    if labels is None and model.num_classes and not model.guidable:
        raise UserError(
            f'labels: the network was trained with one of {model.num_classes} classes for every image '
            'and needs them'
        )
    count = len(images)
    label = None if labels is None else check_labels(model, count, labels)
    level = check_level(model.process, count, t)
    return np.asarray(jax.device_get(program(params, images, level, label)))
