"""The fitness of a population, in two jitted programs: one combines, one samples and measures.

The first makes the weights of some candidates together, spread over the devices. The second takes one
candidate a device, samples with it and extracts features. Its calls are queued without waiting: the
host computes the distance of one candidate while the devices work on the next. No size of population
compiles again. The candidates of one device are sampled in turn and not by `vmap`, whose convolutions
with a kernel for each candidate become grouped ones, which are slower on a CPU (benchmarks/lcsc.py).
All candidates see the same noise and labels.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from threadpoolctl import threadpool_limits

from cm_jax import samplers
from cm_jax.evaluation.scores import Reference
from cm_jax.lcsc import criterion, storage
from cm_jax.lcsc.criterion import Criterion
from cm_jax.lcsc.space import ONE, Space
from cm_jax.lcsc.storage import Stored
from cm_jax.metrics import features, moments
from cm_jax.samplers import GenerativeModel, Sampler
from cm_jax.sharding import AXIS, replicated, to_host
from cm_jax.types import Array, Extractor, Params

Fitness = Callable[[np.ndarray, int], np.ndarray]


def make_fitness(
    model: GenerativeModel,
    sampler: Sampler,
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

    The K coefficients of each group of a candidate should sum to 1; if they do not, the last snapshot
    gets the difference. A candidate whose samples are not finite scores NaN.

    The moments of the features are summed on the device in float32 about the reference's mean, and
    only they come to the host, where the distance is computed in float64. A metric that needs the
    features themselves brings those to the host.

    Args:
      samples: a multiple of `batch_size`.
      metric: what lcsc.criterion takes; None is the extractor's Fréchet distance.
      at_once: how many candidates' weights are in memory together, rounded up to a multiple of the
        devices; as many share one reading of streamed snapshots.

    Raises UserError on wrong metrics.
    """
    if samples % batch_size:
        raise ValueError(f'{samples} samples are no multiple of the batch of {batch_size}')
    wanted = extractor.score if metric is None else metric
    scored = criterion.build(extractor, reference, wanted, samples)
    measure = _make_measure(model, sampler, scored, samples, batch_size)
    program = _on_each_device(measure, mesh)
    combined = storage.make_combine(stored, space, mesh)
    weights = jax.device_put(extractor.params, replicated(mesh))
    each = -(-at_once // mesh.size)  # candidates a device
    block_size = each * mesh.size
    # Where the devices are the host's cores, the threads of its BLAS would keep them from work.
    threads = 1 if mesh.devices.flat[0].platform == 'cpu' else None

    def score_block(rows: np.ndarray, seed: int) -> list[float]:
        padded = np.pad(rows, ((0, block_size - len(rows)), (0, 0)), 'edge')
        # Candidate i is number i // devices of device i % devices.
        candidates = combined(padded.reshape(each, mesh.size, -1).swapaxes(0, 1))
        turns = range(-(-len(rows) // mesh.size))
        queued = [program(weights, np.int32(seed), np.int32(i), candidates) for i in turns]
        scores: list[float] = []
        with threadpool_limits(threads, 'blas'):
            for of_devices in queued:
                measured = list(zip(*jax.tree.map(to_host, of_devices)))
                missing = len(rows) - len(scores)
                scores += [_score(scored, samples, parts) for parts in measured[:missing]]
        return scores

    def fitness(coefficients: np.ndarray, seed: int) -> np.ndarray:
        firsts = range(0, len(coefficients), block_size)
        blocks = [score_block(coefficients[i : i + block_size], seed) for i in firsts]
        return np.concatenate(blocks)

    return fitness


def _score(scored: Criterion, samples: int, measured: tuple[np.ndarray, ...]) -> float:
    """Returns the score of a candidate from what the device has measured of it."""
    if scored.needs_features:
        (extracted,) = measured
        return scored.of_features(extracted)
    sums, outer = measured
    return scored.of_moments(moments.from_centred_sums(samples, sums, outer, _shift(scored)))


def _shift(scored: Criterion) -> Array:
    """Returns the vector [d] about which moments are summed: the mean of the reference."""
    return jnp.asarray(scored.reference.moments.mean, jnp.float32)


def _on_each_device(measure: Callable[..., tuple[Array, ...]], mesh: Mesh) -> Callable:
    """Returns `program(weights, seed, i, candidates)`: each device measures its candidate number i."""

    def of_device(weights: Params, seed: Array, i: Array, candidates: Params) -> tuple[Array, ...]:
        params = jax.tree.map(lambda leaf: leaf[0, i], candidates)
        return jax.tree.map(lambda leaf: leaf[None], measure(params, weights, seed))

    whole, split = PartitionSpec(), PartitionSpec(AXIS)
    mapped = jax.shard_map(
        of_device,
        mesh=mesh,
        in_specs=(whole, whole, whole, split),
        out_specs=split,
        check_vma=False,
    )
    return jax.jit(mapped)


def _make_measure(
    model: GenerativeModel, sampler: Sampler, scored: Criterion, samples: int, batch_size: int
) -> Callable[..., tuple[Array, ...]]:
    """Returns `measure(params, weights, seed)`: all that a score needs of a candidate's samples.

    These are the sums [d] and [d, d] of `moments.centred_sums`, or the features [n, d]. `weights` are
    those of the extractor.
    """
    extractor, shift = scored.extractor, _shift(scored)

    def features_of_batch(params: Params, weights: Params, seed: Array, first: Array) -> Array:
        indices = first + jnp.arange(batch_size)
        x0 = samplers.generate(sampler, model, params, seed, indices)
        return features.of_samples(extractor, weights, x0)

    firsts = jnp.arange(0, samples, batch_size)
    if scored.needs_features:

        def all_features(params: Params, weights: Params, seed: Array) -> tuple[Array, ...]:
            def collect(carry: None, first: Array) -> tuple[None, Array]:
                return carry, features_of_batch(params, weights, seed, first)

            _, batches = jax.lax.scan(collect, None, firsts)
            return (batches.reshape(samples, extractor.dim),)

        return all_features

    def sums(params: Params, weights: Params, seed: Array) -> tuple[Array, ...]:
        def add(total: tuple[Array, Array], first: Array) -> tuple[tuple[Array, Array], None]:
            batch = features_of_batch(params, weights, seed, first)
            return jax.tree.map(jnp.add, total, moments.centred_sums(batch, shift)), None

        zeros = jnp.zeros(extractor.dim), jnp.zeros((extractor.dim, extractor.dim))
        total, _ = jax.lax.scan(add, zeros, firsts)
        return total

    return sums
