"""Scores of generated images: generate, round, extract features, compare with a reference set."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from cm_jax.data import Source, to_float
from cm_jax.errors import UserError
from cm_jax.generate import LABELS, build_sampler, labels_policy, make_generator
from cm_jax.metrics import features, frechet, moments, named, protocol
from cm_jax.metrics.frechet import Frechet
from cm_jax.metrics.moments import Moments
from cm_jax.samplers import GenerativeModel, Sampler
from cm_jax.sharding import by_example, make_mesh, replicated, to_host
from cm_jax.types import Array, Extractor, Params

SaveImages = Callable[[int, int, np.ndarray], None]  # (seed, first index, uint8 [n,H,W,C])


class Reference(NamedTuple):
    """A reference set: the moments of its features, and its identity for protocols.

    `id` is a metrics.protocol.reference_id. `features` [n, dim] are there if they were asked for, and
    `image_shape` where it is known.
    """

    moments: Moments
    id: dict[str, Any]
    features: np.ndarray | None = None
    image_shape: tuple[int, int, int] | None = None

    def kept_features(self) -> np.ndarray:
        """Returns the features. Raises ValueError if the reference was opened without them."""
        if self.features is None:
            raise ValueError(f'the reference {self.id["source"]} was opened without its features')
        return self.features


def reference(
    source: Source, extractor: Extractor, batch_size: int, keep: bool = False
) -> Reference:
    """Returns the moments of the features of every example of a source.

    With `keep` the features are returned too. The checksum is the sha256 of the bytes of the images in
    their order. Raises UserError on a source of fewer than 2 examples.
    """
    if source.count < 2:
        raise UserError(f'reference {source.name} has {source.count} images; it needs at least 2')
    mesh = make_mesh()
    batch_size = -(-batch_size // mesh.size) * mesh.size
    places = replicated(mesh), by_example(mesh)
    extract = jax.jit(extractor.apply, in_shardings=places, out_shardings=places[1])
    weights = jax.device_put(extractor.params, places[0])
    total, digest = moments.empty(extractor.dim), hashlib.sha256()
    kept: list[np.ndarray] = []
    for first in range(0, source.count, batch_size):
        images, _ = source.get(np.arange(first, min(first + batch_size, source.count)))
        digest.update(np.ascontiguousarray(images).data)
        missing = batch_size - len(images)  # the last batch is filled up, to compile once
        padded = np.pad(to_float(images), ((0, missing), (0, 0), (0, 0), (0, 0)))
        batch = to_host(extract(weights, padded))[: len(images)]
        total = moments.update(total, batch)
        if keep:
            kept.append(batch)
    return Reference(
        moments=total,
        id=protocol.reference_id(source.name, source.split, total, digest.hexdigest()),
        features=np.concatenate(kept) if keep else None,
        image_shape=source.image_shape,
    )


def check_shape(reference: Reference, model: GenerativeModel) -> None:
    """Raises UserError if the reference is known to be of images of another shape."""
    shape = reference.image_shape
    if shape is not None and tuple(shape) != tuple(model.image_shape):
        theirs, ours = ('x'.join(map(str, s)) for s in (shape, model.image_shape))
        raise UserError(
            f'the reference {reference.id["source"]} is of images of {theirs}, and those generated are '
            f'{ours}'
        )


def make_features(
    model: GenerativeModel,
    sampler: Sampler,
    extractor: Extractor,
    batch_size: int,
    mesh: Mesh,
    labels: str = LABELS[0],
    save: bool = False,
) -> Callable[..., Iterator[np.ndarray]]:
    """Returns `sample_features(params, seed, samples, levels)`, which compiles one program.

    It yields batches [B, dim] of the features of exactly that many samples. With `save`, a fifth
    argument, `SaveImages`, is called with the images behind each batch.
    """

    def finish(weights: Params, x0: Array) -> tuple[Array, ...]:
        extracted = features.of_samples(extractor, weights, x0)
        return (extracted, features.to_bytes(x0)) if save else (extracted,)

    generate = make_generator(model, sampler, mesh, batch_size, finish, (extractor.params,), labels)

    def sample_features(
        params: Params,
        seed: int,
        samples: int,
        levels: Sequence[float],
        write: SaveImages | None = None,
    ) -> Iterator[np.ndarray]:
        for first in range(0, samples, batch_size):
            batch = generate(params, seed, first, levels)
            extracted, *images = (leaf[: samples - first] for leaf in batch)
            if write is not None:
                write(seed, first, *images)
            yield extracted

    return sample_features


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Parts:
    """What all scores of a Scorer have in common."""

    model: GenerativeModel
    extractor: Extractor  # its weights are on the devices
    batch_size: int
    mesh: Mesh
    labels: str


class Scorer:
    """Scores weights with any samplers under one evaluation.

    Samplers that differ in the values of their noise levels alone share one compiled program.
    `metrics`, by the names of metrics.named, are computed beside the Fréchet distance. Raises
    UserError on `labels` that the model does not have, and on a reference of images of another shape.
    """

    def __init__(
        self,
        model: GenerativeModel,
        extractor: Extractor,
        reference: Reference,
        batch_size: int,
        mesh: Mesh,
        metrics: Sequence[str] = (),
        labels: str = LABELS[0],
    ):
        labels_policy(model, labels)
        check_shape(reference, model)
        on_devices = jax.device_put(extractor.params, replicated(mesh))  # once, for all programs
        self._parts = _Parts(
            model=model,
            extractor=extractor._replace(params=on_devices),
            batch_size=batch_size,
            mesh=mesh,
            labels=labels,
        )
        self._reference = reference
        self._metrics = named.beyond(extractor, metrics)
        self._programs: dict[tuple, Callable[..., Iterator[np.ndarray]]] = {}

    def score(
        self,
        params: Params,
        spec: str,
        samples: int,
        seeds: Sequence[int],
        *,
        ema: str,
        step: int,
        save: SaveImages | None = None,
    ) -> dict[str, Any]:
        """Returns a row: each number's mean and std over seeds, each seed's distance, the protocol.

        `condition` and `rank` are the worst over the seeds of metrics.frechet's. `save` is called with
        the images, batch by batch.
        """
        parts, sampler = self._parts, build_sampler(spec, self._parts.model)
        program = self._program(sampler, save is not None)
        params = jax.device_put(params, replicated(parts.mesh))
        per_seed = [
            self._measure(program(params, seed, samples, sampler.levels, save)) for seed in seeds
        ]
        numbers, distances = zip(*per_seed)
        row: dict[str, Any] = {}
        for name in numbers[0]:
            values = [of_seed[name] for of_seed in numbers]
            row[name] = float(np.mean(values))
            row[f'{name}_std'] = float(np.std(values, ddof=1)) if len(values) > 1 else None
        if self._metrics:
            real = len(self._reference.kept_features())
            row['settings'] = named.settings(parts.extractor, self._metrics, samples, real)
        row['values'] = [of_seed[parts.extractor.score] for of_seed in numbers]
        row['condition'] = float(np.max([distance.condition for distance in distances]))
        row['rank'] = min(distance.rank for distance in distances)
        return row | {'protocol': self.protocol(spec, samples, seeds, ema=ema, step=step)}

    def _program(self, sampler: Sampler, save: bool) -> Callable[..., Iterator[np.ndarray]]:
        """Returns the program of a sampler: one for all that differ in the values of their levels."""
        compiled_in = sampler.name, sampler.options, sampler.head, sampler.guidance
        key = *compiled_in, len(sampler.levels), sampler.evaluations, save
        if key not in self._programs:
            parts = self._parts
            self._programs[key] = make_features(
                parts.model,
                sampler,
                parts.extractor,
                parts.batch_size,
                parts.mesh,
                parts.labels,
                save,
            )
        return self._programs[key]

    def _measure(self, batches: Iterable[np.ndarray]) -> tuple[dict[str, float], Frechet]:
        """Returns the numbers of one seed, the Fréchet distance first, and that one in detail."""
        extractor = self._parts.extractor
        total, kept = moments.empty(extractor.dim), []
        for batch in batches:
            total = moments.update(total, batch)
            if self._metrics:
                kept.append(batch)
        distance = frechet.frechet(total, self._reference.moments)
        numbers = {extractor.score: distance.distance}
        if self._metrics:
            real = self._reference.kept_features()
            numbers |= named.measure(extractor, self._metrics, real, np.concatenate(kept))
        return numbers, distance

    def protocol(
        self, spec: str, samples: int, seeds: Sequence[int], *, ema: str, step: int
    ) -> dict[str, Any]:
        """Returns the protocol that `score` would store beside the numbers."""
        parts, sampler = self._parts, build_sampler(spec, self._parts.model)
        return protocol.protocol(
            parts.extractor,
            samples,
            seeds,
            self._reference.id,
            sampler=spec,
            levels=sampler.levels,
            evaluations=sampler.evaluations,
            ema=ema,
            step=step,
            labels=labels_policy(parts.model, parts.labels),
        )
