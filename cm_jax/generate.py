"""Images from weights: one jitted program for a model and a sampler, spread over the devices."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from cm_jax import samplers
from cm_jax.errors import UserError, check_name
from cm_jax.samplers import GenerativeModel
from cm_jax.sharding import by_example, replicated, to_host
from cm_jax.types import Array, DenoiseFn, Key, Params

# Which class a sample has: its index modulo the classes, or one that is drawn by its index.
LABELS = ('balanced', 'uniform')
# Folded into a sample's key to draw its class; the keys of its noise come from a split of it.
LABEL_STREAM = 1_000_003


def build_sampler(spec: str, model: GenerativeModel) -> samplers.Sampler:
    """Returns the sampler written `spec`. Raises UserError on one that is not legal for the model."""
    sampler = samplers.build(spec, model.process)
    samplers.check_guidance(sampler, model.num_classes)
    samplers.check_head(sampler, len(model.heads))
    return sampler


def labels_policy(model: GenerativeModel, labels: str = LABELS[0]) -> str:
    """Returns the words of a protocol for a policy of LABELS.

    Raises UserError on another one, and on 'uniform' for a network without classes.
    """
    check_name('labels', labels, LABELS)
    classes = model.num_classes
    if labels == 'uniform' and not classes:
        raise UserError("labels 'uniform': the network has no classes; legal: balanced")
    if not classes:
        return 'none'
    return f'uniform over {classes}' if labels == 'uniform' else f'index modulo {classes}'


def uniform_labels(num_classes: int, seed: Array, indices: Array) -> Array:
    """Returns the classes [B] int32 of the samples number `indices` [B], drawn by (seed, index)."""

    def draw(index: Array) -> Array:
        key: Key = jax.random.fold_in(jax.random.key(seed), index)
        return jax.random.randint(jax.random.fold_in(key, LABEL_STREAM), (), 0, num_classes)

    return jax.vmap(draw)(indices)


def with_labels(denoise: DenoiseFn, labels: Array) -> DenoiseFn:
    """Returns `denoise` with these labels [B] wherever it is given labels; without, it gets none."""

    def relabelled(params: Params, x: Array, t: Array, label: Any = None, key: Any = None) -> Array:
        return denoise(params, x, t, None if label is None else labels, key)

    return relabelled


def make_generator(
    model: GenerativeModel,
    sampler: samplers.Sampler,
    mesh: Mesh,
    batch_size: int,
    finish: Callable[..., Any],
    weights: tuple[Params, ...] = (),
    labels: str = LABELS[0],
) -> Callable[..., Any]:
    """Returns `generate(params, seed, first)`, one jitted program, spread over the devices by example.

    It gives `finish(*weights, x0)` as numpy on every process, where x0 are the samples number first to
    first + batch_size - 1 and `finish` returns arrays [B,...]. `weights` are arguments of the program,
    so that they are not compiled in. A fourth argument gives the sampler other noise levels, as many as
    its own, without another compilation. `labels` is one of LABELS.
    """
    padded = -(-batch_size // mesh.size) * mesh.size

    def program(
        params: Params, weights: tuple[Params, ...], seed: Array, first: Array, ts: Array
    ) -> Any:
        indices = jax.lax.with_sharding_constraint(first + jnp.arange(padded), by_example(mesh))
        drawn_from = model
        if labels == 'uniform':
            drawn = uniform_labels(model.num_classes, seed, indices)
            drawn_from = model._replace(
                denoise=with_labels(model.denoise, drawn),
                heads=tuple(with_labels(head, drawn) for head in model.heads),
            )
        x0 = samplers.generate(samplers.at_levels(sampler, ts), drawn_from, params, seed, indices)
        return finish(*weights, x0)

    jitted = jax.jit(program, out_shardings=by_example(mesh))
    weights = jax.device_put(weights, replicated(mesh))

    def generate(
        params: Params, seed: int, first: int, levels: Sequence[float] = sampler.levels
    ) -> Any:
        images = jitted(params, weights, seed, first, np.asarray(levels, np.float32))
        return jax.tree.map(lambda leaf: to_host(leaf)[:batch_size], images)

    return generate
