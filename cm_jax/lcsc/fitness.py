"""The fitness of a population, in two jitted programs: one combines, one samples and measures.

The first makes the weights of some candidates together, spread over the devices. The second takes
one of them a device, samples and extracts features; its calls are queued without waiting, and the
distances of one are computed on the host while the devices work on the next. No size of population
compiles again. Within a device candidates are sampled in turn and not by `vmap`, whose convolutions
with a kernel for each candidate become grouped ones: slower on a CPU, see benchmarks/lcsc.py. All
candidates see the same noise and labels.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from threadpoolctl import threadpool_limits

from cm_jax import samplers
from cm_jax.evaluation.scores import Reference
from cm_jax.lcsc import criterion as metrics
from cm_jax.lcsc import storage
from cm_jax.lcsc.space import ONE, Space
from cm_jax.lcsc.storage import Stored
from cm_jax.metrics import features, moments
from cm_jax.samplers import GenerativeModel
from cm_jax.sharding import AXIS, replicated, to_host
from cm_jax.types import Array, Extractor, Params

Fitness = Callable[[np.ndarray, int], np.ndarray]


def make_fitness(
    model: GenerativeModel,
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

    Each K coefficients of a candidate sum to 1: what is missing, the last snapshot makes up.
    `metric` is the extractor's Fréchet distance, or what lcsc.metric says. The moments of the
    features are summed on the device in float32 about the reference's mean, and only they come to
    the host, where the distance is taken in float64; a metric that needs the features themselves
    brings those. A candidate with non-finite samples scores NaN. `samples` must be a multiple of
    `batch_size`. The weights of `at_once` candidates, rounded up to a multiple of the devices, are
    in memory together: as many as share one reading of streamed snapshots. Raises UserError on wrong
    metrics.
    """
    if samples % batch_size:
        raise ValueError(f'{samples} samples are no multiple of the batch of {batch_size}')
    wanted = extractor.score if metric is None else metric
    scored = metrics.build(extractor, reference, wanted, samples)
    shift = jnp.asarray(reference.moments.mean, jnp.float32)
    measure = _make_measure(model, sampler, extractor, scored, samples, batch_size, shift)
    combined = storage.make_combine(stored, space, mesh)
    weights = jax.device_put(extractor.params, replicated(mesh))
    each = -(-at_once // mesh.size)  # candidates a device
    block = each * mesh.size
    # Where the devices are the host's cores, the threads of its BLAS would keep them from work.
    threads = 1 if mesh.devices.flat[0].platform == 'cpu' else None

    def one(weights: Params, seed: Array, i: Array, candidates: Params) -> tuple[Array, ...]:
        params = jax.tree.map(lambda leaf: leaf[0, i], candidates)
        return jax.tree.map(lambda leaf: leaf[None], measure(params, weights, seed))

    whole, split = PartitionSpec(), PartitionSpec(AXIS)
    specs = {'in_specs': (whole, whole, whole, split), 'out_specs': split}
    program = jax.jit(jax.shard_map(one, mesh=mesh, check_vma=False, **specs))

    def score(found: tuple[np.ndarray, ...]) -> float:
        if scored.needs_features:
            return scored.of_features(*found)
        return scored.of_moments(moments.from_centred_sums(samples, *found, shift))

    def of_block(rows: np.ndarray, seed: int) -> list[float]:
        padded = np.pad(rows, ((0, block - len(rows)), (0, 0)), 'edge')
        # Candidate i is number i // devices of device i % devices.
        candidates = combined(padded.reshape(each, mesh.size, -1).swapaxes(0, 1))
        turns = range(-(-len(rows) // mesh.size))
        queued = [program(weights, np.int32(seed), np.int32(i), candidates) for i in turns]
        found = []
        with threadpool_limits(threads, 'blas'):
            for parts in queued:
                each_device = list(zip(*jax.tree.map(to_host, parts)))
                found += [score(one) for one in each_device[: len(rows) - len(found)]]
        return found

    def fitness(coefficients: np.ndarray, seed: int) -> np.ndarray:
        firsts = range(0, len(coefficients), block)
        return np.concatenate([of_block(coefficients[i : i + block], seed) for i in firsts])

    return fitness


def _make_measure(
    model: GenerativeModel,
    sampler: samplers.Sampler,
    extractor: Extractor,
    scored: metrics.Metric,
    samples: int,
    batch_size: int,
    shift: Array,
) -> Callable[..., tuple[Array, ...]]:
    """`measure(params, weights, seed)`: sums [d] and [d, d] about `shift`, or features [n, d]."""

    def of_batch(params: Params, weights: Params, seed: Array, first: Array) -> Array:
        indices = first + jnp.arange(batch_size)
        x0 = samplers.generate(sampler, model, params, seed, indices)
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
