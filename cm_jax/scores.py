"""Scores of generated images: generate, round, extract features, compare with a reference set."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from cm_jax import samplers
from cm_jax.core.process import Process
from cm_jax.data import Source, to_float
from cm_jax.errors import UserError
from cm_jax.metrics import features, frechet, moments, named, protocol
from cm_jax.metrics.moments import Moments
from cm_jax.metrics.straightness import straightness
from cm_jax.sharding import by_example, replicated, to_host
from cm_jax.types import Array, DenoiseFn, Extractor, Params


class Evaluation(NamedTuple):
    """How a run is scored: a config's `evaluation` section.

    Each seed is a stream of noise of its own, and gives one score of `samples` samples; the score is
    their mean, with their standard deviation beside it. `reference` is the split compared with,
    `weights` the file of an extractor whose weights are not packaged.
    """

    extractor: str
    samplers: tuple[str, ...]
    samples: int
    seeds: tuple[int, ...]
    batch_size: int
    reference: str
    weights: str = ''


class Subject(NamedTuple):
    """What is scored: a denoiser with the shape and classes of its images."""

    denoise: DenoiseFn
    process: Process
    image_shape: tuple[int, int, int]
    num_classes: int  # 0 for an unconditional network


class Reference(NamedTuple):
    """The moments of a reference set and their name (see metrics.protocol.reference_id).

    With the features [n, dim] themselves, if they were asked for.
    """

    moments: Moments
    id: dict
    features: np.ndarray | None = None


def check_numbers(samples: int, seeds: Sequence[int], batch_size: int) -> None:
    """Raises UserError on an evaluation that cannot be carried out."""
    if samples < 2 or batch_size < 1:
        raise UserError(
            f'evaluation needs samples >= 2 and batch_size >= 1, got {samples} and {batch_size}'
        )
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise UserError(f'evaluation.seeds must be different numbers >= 0, got {tuple(seeds)}')


def reference(
    source: Source, extractor: Extractor, batch_size: int, keep: bool = False
) -> Reference:
    """The moments of every example of a source, and their features if they are to be kept."""
    extract, weights = jax.jit(extractor.apply), jax.device_put(extractor.params)
    total, kept = moments.empty(extractor.dim), []
    for first in range(0, source.count, batch_size):
        images, _ = source.get(np.arange(first, min(first + batch_size, source.count)))
        missing = batch_size - len(images)  # filled up, so as not to compile again
        padded = np.pad(to_float(images), ((0, missing), (0, 0), (0, 0), (0, 0)))
        found = np.asarray(extract(weights, padded))[: len(images)]
        total = moments.update(total, found)
        kept += [found] if keep else []
    identity = protocol.reference_id(source.name, source.split, total)
    return Reference(total, identity, np.concatenate(kept) if keep else None)


def build_sampler(spec: str, subject: Subject) -> samplers.Sampler:
    """The sampler written `spec`. Raises UserError on one that is not legal for the subject."""
    sampler = samplers.build(spec, subject.process)
    samplers.check_guidance(sampler, subject.num_classes)
    return sampler


def make_generator(
    subject: Subject,
    sampler: samplers.Sampler,
    mesh: Mesh,
    batch_size: int,
    finish: Callable[..., Array],
    weights: tuple[Params, ...] = (),
) -> Callable[..., np.ndarray]:
    """`generate(params, seed, first)`: finish(*weights, samples first .. first + batch_size - 1).

    One jitted program, spread over the devices by example, of which `weights` are arguments; the
    result is numpy, on every process. A fourth argument gives the sampler other noise levels, as
    many as its own, with the same program.
    """
    padded = -(-batch_size // mesh.size) * mesh.size

    def program(
        params: Params, weights: tuple[Params, ...], seed: Array, first: Array, ts: Array
    ) -> Array:
        indices = jax.lax.with_sharding_constraint(first + jnp.arange(padded), by_example(mesh))
        x0 = samplers.generate(
            samplers.at_levels(sampler, ts),
            subject.denoise,
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
    ) -> np.ndarray:
        ts = np.asarray(levels, np.float32)
        return to_host(jitted(params, weights, seed, first, ts))[:batch_size]

    return generate


def make_features(
    subject: Subject, sampler: samplers.Sampler, extractor: Extractor, batch_size: int, mesh: Mesh
) -> Callable[[Params, int, int, Sequence[float]], Iterator[np.ndarray]]:
    """`features(params, seed, samples, levels)`: batches [B, dim] of exactly that many samples.

    One compilation.
    """
    finish = partial(features.of_samples, extractor)
    generate = make_generator(subject, sampler, mesh, batch_size, finish, (extractor.params,))

    def of(
        params: Params, seed: int, samples: int, levels: Sequence[float]
    ) -> Iterator[np.ndarray]:
        for first in range(0, samples, batch_size):
            yield generate(params, seed, first, levels)[: samples - first]

    return of


def straightness_protocol(
    subject: Subject, steps: int, samples: int, seeds: Sequence[int], *, ema: str, step: int
) -> dict:
    """What `straightness_row` stores beside the number."""
    return {
        'metric': 'straightness',
        'euler_steps': steps,
        'samples': samples,
        'seeds': [int(seed) for seed in seeds],
        'ema': ema,
        'step': step,
        'labels': labels_policy(subject),
    }


def straightness_row(
    subject: Subject,
    mesh: Mesh,
    params: Params,
    protocol: dict,
    batch_size: int,
) -> dict:
    """A row: the mean straightness of the samples that a protocol names (see metrics.straightness),
    its standard deviation over seeds, each seed's value, and the protocol."""
    steps, samples, seeds = (protocol[key] for key in ('euler_steps', 'samples', 'seeds'))
    _, process, *images = subject
    padded = -(-batch_size // mesh.size) * mesh.size

    def program(params: Params, seed: Array, first: Array) -> Array:
        indices = jax.lax.with_sharding_constraint(first + jnp.arange(padded), by_example(mesh))
        x_T, label, _ = samplers.start(process.prior_std, *images, seed, indices)
        denoise = lambda x, t: subject.denoise(params, x, t, label)  # noqa: E731
        return straightness(denoise, process, x_T, steps)

    jitted = jax.jit(program, out_shardings=by_example(mesh))
    params = jax.device_put(params, replicated(mesh))
    values = []
    for seed in seeds:
        batches = [
            to_host(jitted(params, seed, first))[: min(batch_size, samples - first)]
            for first in range(0, samples, batch_size)
        ]
        values.append(float(np.mean(np.concatenate(batches), dtype=np.float64)))
    return {
        'straightness': float(np.mean(values)),
        'straightness_std': float(np.std(values, ddof=1)) if len(values) > 1 else None,
        'values': values,
        'protocol': protocol,
    }


def labels_policy(subject: Subject) -> str:
    """The policy behind the labels of `samplers.generate`, in a protocol's words."""
    return f'index modulo {subject.num_classes}' if subject.num_classes else 'none'


class Scorer:
    """Scores weights under one evaluation; samplers that differ in the values of their noise levels
    alone share one compiled program.

    `metrics`, by the names of metrics.named, are computed beside the Fréchet distance.
    """

    def __init__(
        self,
        subject: Subject,
        extractor: Extractor,
        reference: Reference,
        batch_size: int,
        mesh: Mesh,
        metrics: Sequence[str] = (),
    ):
        self._parts = (subject, extractor, batch_size, mesh)
        self._reference = reference
        self._metrics = named.beyond(extractor, metrics)
        self._programs: dict[tuple, Callable] = {}

    def score(
        self,
        params: Params,
        spec: str,
        samples: int,
        seeds: Sequence[int],
        *,
        ema: str,
        step: int,
    ) -> dict:
        """A row: each number's mean and std over seeds, each seed's distance, and the protocol."""
        subject, extractor, batch_size, mesh = self._parts
        sampler = build_sampler(spec, subject)
        kind = (sampler.name, sampler.options, len(sampler.levels), sampler.guidance)
        if kind not in self._programs:
            self._programs[kind] = make_features(subject, sampler, extractor, batch_size, mesh)
        params = jax.device_put(params, replicated(mesh))
        found = [
            self._measure(self._programs[kind](params, seed, samples, sampler.levels))
            for seed in seeds
        ]
        row = {}
        for name in found[0]:
            values = [one[name] for one in found]
            row[name] = float(np.mean(values))
            row[f'{name}_std'] = float(np.std(values, ddof=1)) if len(values) > 1 else None
        if self._metrics:
            counts = samples, self._reference.moments.count
            row['settings'] = named.settings(extractor, self._metrics, *counts)
        row['values'] = [one[extractor.score] for one in found]
        return row | {'protocol': self.protocol(spec, samples, seeds, ema=ema, step=step)}

    def _measure(self, batches: Iterable[np.ndarray]) -> dict[str, float]:
        """The numbers of one seed, the Fréchet distance first."""
        extractor = self._parts[1]
        total, kept = moments.empty(extractor.dim), []
        for batch in batches:
            total = moments.update(total, batch)
            kept += [batch] if self._metrics else []
        found = {extractor.score: frechet.frechet_distance(total, self._reference.moments)}
        if self._metrics:
            real, samples = self._reference.features, np.concatenate(kept)
            found |= named.measure(extractor, self._metrics, real, samples)
        return found

    def protocol(
        self, spec: str, samples: int, seeds: Sequence[int], *, ema: str, step: int
    ) -> dict:
        """What `score` would store beside the number."""
        subject, extractor, _, _ = self._parts
        sampler = build_sampler(spec, subject)
        return protocol.protocol(
            extractor,
            samples,
            seeds,
            self._reference.id,
            sampler=spec,
            levels=sampler.levels,
            evaluations=sampler.evaluations,
            ema=ema,
            step=step,
            labels=labels_policy(subject),
        )
