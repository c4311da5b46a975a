"""Images from weights: one jitted program for a subject and a sampler, spread over the devices."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from cm_jax import samplers
from cm_jax.core.process import Process
from cm_jax.errors import UserError, check_name
from cm_jax.sharding import by_example, replicated, to_host
from cm_jax.types import Array, DenoiseFn, Key, Params

LABELS = ('balanced', 'uniform')  # a sample's class: its index modulo them, or any, by its index
LABEL_STREAM = 1_000_003  # folded into a sample's key: those of its noise come from a split


class Subject(NamedTuple):
    """What is scored: a denoiser with the shape and classes of its images.

    heads: D of each head of a network that has several, of which `denoise` is one.
    """

    denoise: DenoiseFn
    process: Process
    image_shape: tuple[int, int, int]
    num_classes: int  # 0 for an unconditional network
    heads: tuple[DenoiseFn, ...] = ()


def build_sampler(spec: str, subject: Subject) -> samplers.Sampler:
    """The sampler written `spec`. Raises UserError on one that is not legal for the subject."""
    sampler = samplers.build(spec, subject.process)
    samplers.check_guidance(sampler, subject.num_classes)
    if sampler.head > len(subject.heads):
        legal = f'+head1 to +head{len(subject.heads)}' if subject.heads else 'no +head'
        raise UserError(
            f'sampler {spec!r}: the network has {len(subject.heads) or 1} head(s); legal: {legal}'
        )
    return sampler


def denoiser(subject: Subject, sampler: samplers.Sampler) -> DenoiseFn:
    """D of the head that the sampler names, or the subject's own."""
    return subject.heads[sampler.head - 1] if sampler.head else subject.denoise


def labels_policy(subject: Subject, labels: str = LABELS[0]) -> str:
    """A policy of LABELS for the subject, in a protocol's words.

    Raises UserError on another one, and on 'uniform' for a network without classes.
    """
    check_name('labels', labels, LABELS)
    classes = subject.num_classes
    if labels == 'uniform' and not classes:
        raise UserError("labels 'uniform': the network has no classes; legal: balanced")
    if not classes:
        return 'none'
    return f'uniform over {classes}' if labels == 'uniform' else f'index modulo {classes}'


def uniform_labels(num_classes: int, seed: Array, indices: Array) -> Array:
    """[B] int32: the classes of the samples number `indices` [B], each drawn by (seed, index)."""

    def draw(index: Array) -> Array:
        key: Key = jax.random.fold_in(jax.random.key(seed), index)
        return jax.random.randint(jax.random.fold_in(key, LABEL_STREAM), (), 0, num_classes)

    return jax.vmap(draw)(indices)


def with_labels(denoise: DenoiseFn, labels: Array) -> DenoiseFn:
    """`denoise` with these labels [B] wherever it is given labels: no label stays none."""

    def relabelled(params: Params, x: Array, t: Array, label: Any = None, key: Any = None) -> Array:
        return denoise(params, x, t, None if label is None else labels, key)

    return relabelled


def make_generator(
    subject: Subject,
    sampler: samplers.Sampler,
    mesh: Mesh,
    batch_size: int,
    finish: Callable[..., Any],
    weights: tuple[Params, ...] = (),
    labels: str = LABELS[0],
) -> Callable[..., Any]:
    """`generate(params, seed, first)`: finish(*weights, samples first .. first + batch_size - 1).

    One jitted program, spread over the devices by example, of which `weights` are arguments; the
    result is numpy, on every process. A fourth argument gives the sampler other noise levels, as
    many as its own, with the same program. `finish` gives arrays [B,...]; `labels` is one of LABELS.
    """
    padded = -(-batch_size // mesh.size) * mesh.size

    def program(
        params: Params, weights: tuple[Params, ...], seed: Array, first: Array, ts: Array
    ) -> Any:
        indices = jax.lax.with_sharding_constraint(first + jnp.arange(padded), by_example(mesh))
        denoise = denoiser(subject, sampler)
        if labels == 'uniform':
            denoise = with_labels(denoise, uniform_labels(subject.num_classes, seed, indices))
        x0 = samplers.generate(
            samplers.at_levels(sampler, ts),
            denoise,
            params,
            subject.process.prior_std,
            subject.image_shape,
            subject.num_classes,
            seed,
            indices,
        )
        return finish(*weights, x0)

    jitted = jax.jit(program, out_shardings=by_example(mesh))
    weights = jax.device_put(weights, replicated(mesh))

    def generate(
        params: Params, seed: int, first: int, levels: Sequence[float] = sampler.levels
    ) -> Any:
        found = jitted(params, weights, seed, first, np.asarray(levels, np.float32))
        return jax.tree.map(lambda leaf: to_host(leaf)[:batch_size], found)

    return generate
