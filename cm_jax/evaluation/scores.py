"""Scores of generated images: generate, round, extract features, compare with a reference set."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from cm_jax import samplers
from cm_jax.data import Source, to_float
from cm_jax.errors import UserError
from cm_jax.generate import LABELS, build_sampler, labels_policy, make_generator
from cm_jax.metrics import features, frechet, moments, named, protocol
from cm_jax.metrics.moments import Moments
from cm_jax.samplers import GenerativeModel
from cm_jax.sharding import by_example, make_mesh, replicated, to_host
from cm_jax.types import Array, Extractor, Params

SaveImages = Callable[[int, int, np.ndarray], None]  # (seed, first index, uint8 [n,H,W,C])


class Reference(NamedTuple):
    """The moments of a reference set and their name (see metrics.protocol.reference_id).

    With the features [n, dim] themselves, if they were asked for, and the shape of the images, where
    it is known.
    """

    moments: Moments
    id: dict
    features: np.ndarray | None = None
    image_shape: tuple[int, int, int] | None = None


def reference(
    source: Source, extractor: Extractor, batch_size: int, keep: bool = False
) -> Reference:
    """The moments of every example of a source, and their features if they are to be kept.

    The last batch is as good as any: it is filled up and cut again. The checksum is the sha256 of
    the bytes of the images in their order. Raises UserError on a source of fewer than 2 examples.
    """
    if source.count < 2:
        raise UserError(f'reference {source.name} has {source.count} images; it needs at least 2')
    mesh = make_mesh()
    batch_size = -(-batch_size // mesh.size) * mesh.size
    places = replicated(mesh), by_example(mesh)
    extract = jax.jit(extractor.apply, in_shardings=places, out_shardings=places[1])
    weights = jax.device_put(extractor.params, places[0])
    total, kept, digest = moments.empty(extractor.dim), [], hashlib.sha256()
    for first in range(0, source.count, batch_size):
        images, _ = source.get(np.arange(first, min(first + batch_size, source.count)))
        digest.update(np.ascontiguousarray(images).data)
        missing = batch_size - len(images)  # filled up, so as not to compile again
        padded = np.pad(to_float(images), ((0, missing), (0, 0), (0, 0), (0, 0)))
        found = to_host(extract(weights, padded))[: len(images)]
        total = moments.update(total, found)
        kept += [found] if keep else []
    identity = protocol.reference_id(source.name, source.split, total, digest.hexdigest())
    found = np.concatenate(kept) if keep else None
    return Reference(total, identity, found, source.image_shape)


def check_shape(reference: Reference, model: GenerativeModel) -> None:
    """Raises UserError if the reference is known to be of images of another shape."""
    theirs, ours = reference.image_shape, model.image_shape
    if theirs is not None and tuple(theirs) != tuple(ours):
        theirs, ours = ('x'.join(map(str, shape)) for shape in (theirs, ours))
        raise UserError(
            f'the reference {reference.id["source"]} is of images of {theirs}, and those generated are '
            f'{ours}'
        )


def make_features(
    model: GenerativeModel,
    sampler: samplers.Sampler,
    extractor: Extractor,
    batch_size: int,
    mesh: Mesh,
    labels: str = LABELS[0],
    save: bool = False,
) -> Callable[..., Iterator[np.ndarray]]:
    """`features(params, seed, samples, levels)`: batches [B, dim] of exactly that many samples.

    One compilation. With `save`, a fifth argument is called with the images behind each batch.
    """

    def finish(weights: Params, x0: Array) -> tuple[Array, ...]:
        found = features.of_samples(extractor, weights, x0)
        return (found, features.to_bytes(x0)) if save else (found,)

    generate = make_generator(model, sampler, mesh, batch_size, finish, (extractor.params,), labels)

    def of(
        params: Params,
        seed: int,
        samples: int,
        levels: Sequence[float],
        write: SaveImages | None = None,
    ) -> Iterator[np.ndarray]:
        for first in range(0, samples, batch_size):
            batch = generate(params, seed, first, levels)
            found, *images = (leaf[: samples - first] for leaf in batch)
            if write is not None:
                write(seed, first, *images)
            yield found

    return of


class Scorer:
    """Scores weights under one evaluation; samplers that differ in the values of their noise levels
    alone share one compiled program.

    `metrics`, by the names of metrics.named, are computed beside the Fréchet distance. Raises
    UserError on `labels` that the model has not, and on a reference of images of another shape.
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
        extractor = extractor._replace(params=on_devices)
        self._parts = (model, extractor, batch_size, mesh, labels)
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
        save: SaveImages | None = None,
    ) -> dict:
        """A row: each number's mean and std over seeds, each seed's distance, and the protocol.

        `condition` and `rank` are the worst over seeds of metrics.frechet's. `save` is called with
        the images, batch by batch.
        """
        model, extractor, batch_size, mesh, labels = self._parts
        sampler = build_sampler(spec, model)
        count = len(sampler.levels)
        other = sampler._replace(spec='', levels=(), sample=None)  # all that is compiled in
        kind = (other, count, save is not None)
        if kind not in self._programs:
            self._programs[kind] = make_features(
                model, sampler, extractor, batch_size, mesh, labels, save is not None
            )
        params = jax.device_put(params, replicated(mesh))
        found, compared = zip(
            *(
                self._measure(self._programs[kind](params, seed, samples, sampler.levels, save))
                for seed in seeds
            )
        )
        row = {}
        for name in found[0]:
            values = [one[name] for one in found]
            row[name] = float(np.mean(values))
            row[f'{name}_std'] = float(np.std(values, ddof=1)) if len(values) > 1 else None
        if self._metrics:
            counts = samples, len(self._reference.features)
            row['settings'] = named.settings(extractor, self._metrics, *counts)
        row['values'] = [one[extractor.score] for one in found]
        row['condition'] = float(np.max([one.condition for one in compared]))
        row['rank'] = min(one.rank for one in compared)
        return row | {'protocol': self.protocol(spec, samples, seeds, ema=ema, step=step)}

    def _measure(self, batches: Iterable[np.ndarray]) -> tuple[dict[str, float], frechet.Frechet]:
        """The numbers of one seed, the Fréchet distance first, and the latter in detail."""
        extractor = self._parts[1]
        total, kept = moments.empty(extractor.dim), []
        for batch in batches:
            total = moments.update(total, batch)
            kept += [batch] if self._metrics else []
        compared = frechet.frechet(total, self._reference.moments)
        found = {extractor.score: compared.distance}
        if self._metrics:
            real, samples = self._reference.features, np.concatenate(kept)
            found |= named.measure(extractor, self._metrics, real, samples)
        return found, compared

    def protocol(
        self, spec: str, samples: int, seeds: Sequence[int], *, ema: str, step: int
    ) -> dict:
        """What `score` would store beside the number."""
        model, extractor, *_, labels = self._parts
        sampler = build_sampler(spec, model)
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
            labels=labels_policy(model, labels),
        )
