"""The fitness of a population: one jitted program that combines, samples and extracts features.

The program takes one candidate a device, and a population runs through it block by block, queued
without waiting: no size of population compiles again, and the distances of one block are computed on
the host while the devices work on the next. Within a device candidates are not `vmap`ped: on a
CPU a loop over candidates is 1.8 times faster than `vmap`, whose convolutions with a kernel for each
candidate become grouped ones. All candidates see the same noise and labels.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from cm_jax import samplers
from cm_jax.generate import Subject, denoiser
from cm_jax.lcsc import metric as metrics
from cm_jax.lcsc import storage
from cm_jax.lcsc.space import ONE, Space, combine
from cm_jax.lcsc.storage import Stored
from cm_jax.metrics import features, moments
from cm_jax.scores import Reference
from cm_jax.sharding import AXIS, replicated, to_host
from cm_jax.types import Array, Extractor, Params

Fitness = Callable[[np.ndarray, int], np.ndarray]


def make_fitness(
    subject: Subject,
    sampler: samplers.Sampler,
    extractor: Extractor,
    reference: Reference,
    stored: Stored,
    *,
    samples: int,
    batch_size: int,
    mesh: Mesh,
    metric: str | Mapping[str, float] | None = None,
    space: Space = ONE,
    at_once: int = 16,
) -> Fitness:
    """Returns `fitness(coefficients [P, G K], seed) -> scores [P]`; lower is better.

    `metric` is the extractor's Fréchet distance, or what lcsc.metric says. The moments of the
    features are summed on the device in float32 about the reference's mean, and only they come to
    the host, where the distance is taken in float64; a metric that needs the features themselves
    brings those. A candidate with non-finite samples scores NaN. `samples` must be a multiple of
    `batch_size`. `at_once` candidates, at least one a device, are in memory together: their sums, and
    where the snapshots are streamed, once for so many, their weights. Raises UserError on wrong
    metrics.
    """
    if samples % batch_size:
        raise ValueError(f'{samples} samples are no multiple of the batch of {batch_size}')
    wanted = extractor.score if metric is None else metric
    scored = metrics.build(extractor, reference, wanted, samples)
    shift = jnp.asarray(reference.moments.mean, jnp.float32)
    measure = _make_measure(subject, sampler, extractor, scored, samples, batch_size, shift)
    run = (_run_streamed if stored.streamed else _run_stacked)(
        measure, stored, extractor.params, space, mesh
    )

    def score(found: tuple[np.ndarray, ...]) -> float:
        if scored.needs_features:
            return scored.of_features(*found)
        return scored.of_moments(moments.from_centred_sums(samples, *found, shift))

    def fitness(coefficients: np.ndarray, seed: int) -> np.ndarray:
        size = mesh.size
        rows = np.asarray(coefficients, np.float32)
        padded = np.pad(rows, ((0, -len(rows) % size), (0, 0)), 'edge')
        blocks = [padded[i : i + size] for i in range(0, len(padded), size)]
        found, together = [], max(1, at_once // size)
        for i in range(0, len(blocks), together):
            for block in run(blocks[i : i + together], np.int32(seed)):
                parts = jax.tree.map(to_host, block)
                rest = len(rows) - len(found)
                found += [score(one) for one in list(zip(*parts))[:rest]]
        return np.array(found)

    return fitness


def _make_measure(
    subject: Subject,
    sampler: samplers.Sampler,
    extractor: Extractor,
    scored: metrics.Metric,
    samples: int,
    batch_size: int,
    shift: Array,
) -> Callable[..., tuple[Array, ...]]:
    """`measure(params, weights, seed)`: sums [d] and [d, d] about `shift`, or features [n, d]."""

    def of_batch(params: Params, weights: Params, seed: Array, first: Array) -> Array:
        x0 = samplers.generate(
            sampler,
            denoiser(subject, sampler),
            params,
            subject.process.prior_std,
            subject.image_shape,
            subject.num_classes,
            seed,
            first + jnp.arange(batch_size),
        )
        return features.of_samples(extractor, weights, x0)

    def measure(params: Params, weights: Params, seed: Array) -> tuple[Array, ...]:
        def batch(total: tuple[Array, ...], first: Array) -> tuple[tuple[Array, ...], Array | None]:
            found = of_batch(params, weights, seed, first)
            if scored.needs_features:
                return total, found
            return jax.tree.map(jnp.add, total, moments.centred_sums(found, shift)), None

        dim = extractor.dim
        zero = () if scored.needs_features else (jnp.zeros(dim), jnp.zeros((dim, dim)))
        total, found = jax.lax.scan(batch, zero, jnp.arange(0, samples, batch_size))
        return (found.reshape(samples, dim),) if scored.needs_features else total

    return measure


def _run_stacked(
    measure: Callable, stored: Stored, weights: Params, space: Space, mesh: Mesh
) -> Callable[[Sequence[np.ndarray], np.int32], Iterator[tuple[Array, ...]]]:
    """`run(blocks, seed)`: what `measure` finds of each block of candidates, [mesh.size, ...]."""
    whole = (stored.stacked, stored.base, weights)
    whole = jax.device_put(whole, replicated(mesh))

    def one(stacked: Params, base: Params, weights: Params, seed: Array, c: Array) -> tuple:
        found = measure(combine(space, stacked, c[0], base), weights, seed)
        return jax.tree.map(lambda leaf: leaf[None], found)

    program = _spread(one, mesh, shared=4)
    return lambda blocks, seed: iter([program(*whole, seed, block) for block in blocks])


def _run_streamed(
    measure: Callable, stored: Stored, weights: Params, space: Space, mesh: Mesh
) -> Callable[[Sequence[np.ndarray], np.int32], Iterator[tuple[Array, ...]]]:
    """The same where the snapshots are not on the devices."""
    combined = storage.make_streams(stored, space, mesh)
    weights = jax.device_put(weights, replicated(mesh))

    def one(weights: Params, seed: Array, totals: Params) -> tuple:
        params = jax.tree.map(lambda leaf: leaf[0], storage.value(totals))
        found = measure(params, weights, seed)
        return jax.tree.map(lambda leaf: leaf[None], found)

    program = _spread(one, mesh, shared=2)
    return lambda blocks, seed: iter([program(weights, seed, t) for t in combined(blocks)])


def _spread(one: Callable, mesh: Mesh, shared: int) -> Callable:
    """The jitted program of a block: `one` on each device, whose first arguments are the same."""
    specs = (*[PartitionSpec()] * shared, PartitionSpec(AXIS))
    spread = jax.shard_map(
        one, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(AXIS), check_vma=False
    )
    return jax.jit(spread)
