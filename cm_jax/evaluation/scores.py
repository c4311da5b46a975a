"""Scores of generated images: generate, round, extract features, compare with a reference set."""

import dataclasses
import functools
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
from cm_jax.metrics.precision_recall import RealFeatures
from cm_jax.samplers import GenerativeModel, Sampler
from cm_jax.sharding import by_example, is_primary, make_mesh, replicated, to_host
from cm_jax.terminal import Progress, progress
from cm_jax.types import Array, Extractor, Params

SaveImages = Callable[[int, int, np.ndarray], None]  # (seed, first index, uint8 [n,H,W,C])


class Reference(NamedTuple):
    """A reference set: the moments of its features, and its identity for protocols.

    `id` is a metrics.protocol.reference_id. The features themselves, `real`, are there if they were
    asked for, and `image_shape` where it is known.
    """

    moments: Moments
    id: dict[str, Any]
    real: RealFeatures | None = None
    image_shape: tuple[int, int, int] | None = None

    @property
    def features(self) -> np.ndarray | None:
        """The features [n, dim], if they were asked for."""
        return None if self.real is None else self.real.array

    def kept_features(self) -> RealFeatures:
        """Returns the features. Raises ValueError if the reference was opened without them."""
        if self.real is None:
            raise ValueError(f'the reference {self.id["source"]} was opened without its features')
        return self.real


class FeatureSpace(NamedTuple):
    """Where samples are compared with real images: an extractor, and the reference in its features.

    `metrics`, by the names of metrics.named, are measured beside the Fréchet distance.
    """

    extractor: Extractor
    reference: Reference
    metrics: tuple[str, ...] = ()

    @property
    def beyond(self) -> list[str]:
        """The metrics that need the features and not only their moments."""
        return named.beyond(self.extractor, self.metrics)


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
    firsts, what = range(0, source.count, batch_size), f'features of {source.name}, {source.split}'
    for first in progress(firsts, len(firsts), what, 'batches', active=is_primary(), leave=False):
        images, _ = source.get(np.arange(first, min(first + batch_size, source.count)))
        digest.update(np.ascontiguousarray(images).data)
        missing = batch_size - len(images)  # the last batch is filled up, to compile once
        padded = np.pad(to_float(images), ((0, missing), (0, 0), (0, 0), (0, 0)))
        # Each process gives the part of the batch that lies on its devices.
        split = jax.make_array_from_callback(padded.shape, places[1], padded.__getitem__)
        batch = to_host(extract(weights, split))[: len(images)]
        total = moments.update(total, batch)
        if keep:
            kept.append(batch)
    return Reference(
        moments=total,
        id=protocol.reference_id(source.name, source.split, total, digest.hexdigest()),
        real=RealFeatures(np.concatenate(kept)) if keep else None,
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
    extractors: Sequence[Extractor],
    batch_size: int,
    mesh: Mesh,
    labels: str = LABELS[0],
    save: bool = False,
    rule: str = 'round',
) -> Callable[..., Iterator[list[np.ndarray]]]:
    """Returns `sample_features(params, seed, samples, levels)`, which compiles one program.

    It yields, for each batch of exactly that many samples, their features [B, dim] by each extractor.
    The samples become bytes by `rule`, one of metrics.features.ROUNDING. With `save`, a fifth argument,
    `SaveImages`, is called with the images behind each batch.
    """

    def finish(*weights_and_x0: Any) -> tuple[Array, ...]:
        *weights, x0 = weights_and_x0
        rounding = functools.partial(features.round_uint8, rule=rule)
        extracted = [features.of_samples(e, w, x0, rounding) for e, w in zip(extractors, weights)]
        return (*extracted, features.to_bytes(x0, rule)) if save else tuple(extracted)

    weights = tuple(extractor.params for extractor in extractors)
    generate = make_generator(model, sampler, mesh, batch_size, finish, weights, labels)

    def sample_features(
        params: Params,
        seed: int,
        samples: int,
        levels: Sequence[float],
        write: SaveImages | None = None,
    ) -> Iterator[list[np.ndarray]]:
        for first in range(0, samples, batch_size):
            batch = [leaf[: samples - first] for leaf in generate(params, seed, first, levels)]
            if write is not None:
                write(seed, first, batch[-1])
            yield batch[: len(extractors)]

    return sample_features


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Parts:
    """What all scores of a Scorer have in common."""

    model: GenerativeModel
    spaces: tuple[FeatureSpace, ...]  # the weights of the extractors are on the devices
    batch_size: int
    mesh: Mesh
    labels: str
    rule: str  # by which samples become bytes


class Scorer:
    """Scores weights with any samplers under one evaluation.

    Samplers that differ in the values of their noise levels alone share one compiled program. The first
    of the feature spaces is that of the score; in the others the same samples are measured beside it.
    Samples become bytes by `rule` (metrics.features.ROUNDING).
    Raises UserError on `labels` that the model does not have, and on a reference of images of another
    shape.
    """

    def __init__(
        self,
        model: GenerativeModel,
        spaces: Sequence[FeatureSpace],
        batch_size: int,
        mesh: Mesh,
        labels: str = LABELS[0],
        rule: str = 'round',
    ):
        labels_policy(model, labels)
        for space in spaces:
            check_shape(space.reference, model)
        self._parts = _Parts(
            model=model,
            spaces=tuple(_on_devices(space, mesh) for space in spaces),  # once, for all programs
            batch_size=batch_size,
            mesh=mesh,
            labels=labels,
            rule=rule,
        )
        self._programs: dict[tuple, Callable[..., Iterator[list[np.ndarray]]]] = {}

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
        bar: Progress | None = None,
    ) -> dict[str, Any]:
        """Returns a row: each number's mean and std over seeds, each seed's distance, the protocol.

        `condition` and `rank` are the worst over the seeds of metrics.frechet's. What concerns one of
        the other feature spaces stands under `others`, by the name of its distance; the numbers
        themselves have names of their own and stand together. `save` is called with the images, batch
        by batch, and `bar` counts them.
        """
        parts, sampler = self._parts, build_sampler(spec, self._parts.model)
        program = self._program(sampler, save is not None)
        params = jax.device_put(params, replicated(parts.mesh))
        per_seed = [
            _measure(parts.spaces, program(params, seed, samples, sampler.levels, save), bar)
            for seed in seeds
        ]
        row: dict[str, Any] = {}
        others = {}
        for i, (space, of_seeds) in enumerate(zip(parts.spaces, zip(*per_seed))):
            numbers, details = _summary(space, of_seeds, samples)
            row |= numbers
            details['protocol'] = self.protocol(spec, samples, seeds, ema=ema, step=step, space=i)
            if i:
                others[space.extractor.score] = details
            else:
                row |= details
        return row | ({'others': others} if others else {})

    def _program(self, sampler: Sampler, save: bool) -> Callable[..., Iterator[list[np.ndarray]]]:
        """Returns the program of a sampler: one for all that differ in the values of their levels."""
        guidance = sampler.guidance, sampler.guide, sampler.autoguidance
        compiled_in = sampler.name, sampler.options, sampler.clips, sampler.head, *guidance
        key = *compiled_in, len(sampler.levels), sampler.evaluations, save
        if key not in self._programs:
            parts = self._parts
            self._programs[key] = make_features(
                parts.model,
                sampler,
                [space.extractor for space in parts.spaces],
                parts.batch_size,
                parts.mesh,
                parts.labels,
                save,
                parts.rule,
            )
        return self._programs[key]

    def protocol(
        self, spec: str, samples: int, seeds: Sequence[int], *, ema: str, step: int, space: int = 0
    ) -> dict[str, Any]:
        """Returns the protocol that `score` would store beside the numbers of a feature space."""
        parts, sampler = self._parts, build_sampler(spec, self._parts.model)
        return protocol.protocol(
            parts.spaces[space].extractor,
            samples,
            seeds,
            parts.spaces[space].reference.id,
            sampler=spec,
            levels=sampler.levels,
            evaluations=sampler.evaluations,
            ema=ema,
            step=step,
            labels=labels_policy(parts.model, parts.labels),
            rounding=features.ROUNDING[parts.rule],
        )


def _on_devices(space: FeatureSpace, mesh: Mesh) -> FeatureSpace:
    """Returns a feature space whose extractor has its weights on the devices."""
    weights = jax.device_put(space.extractor.params, replicated(mesh))
    return space._replace(extractor=space.extractor._replace(params=weights))


Numbers = tuple[dict[str, float], Frechet]  # of one seed and space; the distance again, in detail


def _measure(
    spaces: Sequence[FeatureSpace],
    batches: Iterable[Sequence[np.ndarray]],
    bar: Progress | None = None,
) -> list[Numbers]:
    """Returns the numbers of one seed in each feature space, the Fréchet distance first."""
    totals = [moments.empty(space.extractor.dim) for space in spaces]
    kept: list[list[np.ndarray]] = [[] for _ in spaces]
    for batch in batches:
        if bar is not None:
            bar.update(len(batch[0]))
        totals = [moments.update(total, extracted) for total, extracted in zip(totals, batch)]
        for space, features_kept, extracted in zip(spaces, kept, batch):
            if space.beyond:
                features_kept.append(extracted)
    found = []
    for space, total, features_kept in zip(spaces, totals, kept):
        distance = frechet.frechet(total, space.reference.moments)
        numbers = {space.extractor.score: distance.distance}
        if space.beyond:
            real, extracted = space.reference.kept_features(), np.concatenate(features_kept)
            numbers |= named.measure(space.extractor, space.beyond, real, extracted)
        found.append((numbers, distance))
    return found


def _summary(
    space: FeatureSpace, of_seeds: Sequence[Numbers], samples: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the means and standard deviations over the seeds, and the details behind them."""
    numbers, distances = zip(*of_seeds)
    row: dict[str, Any] = {}
    for name in numbers[0]:
        values = [of_seed[name] for of_seed in numbers]
        row[name] = float(np.mean(values))
        row[f'{name}_std'] = float(np.std(values, ddof=1)) if len(values) > 1 else None
    details: dict[str, Any] = {}
    if space.beyond:
        real = len(space.reference.kept_features().array)
        details['settings'] = named.settings(space.extractor, space.beyond, samples, real)
    details['values'] = [of_seed[space.extractor.score] for of_seed in numbers]
    details['condition'] = float(np.max([distance.condition for distance in distances]))
    details['rank'] = min(distance.rank for distance in distances)
    return row, details
