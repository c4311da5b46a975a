"""The fitness of a population, in two jitted programs: one combines, one samples and measures.

The first makes the weights of some candidates together, spread over the devices. The second takes
one candidate a device, samples with it and extracts features, by all the extractors from one set of
samples. Its calls are queued without waiting: the host computes the distance of one candidate while
the devices work on the next. No size of population compiles again. The candidates of one device are
sampled in turn and not by `vmap`, whose convolutions with a kernel for each candidate become
grouped ones, which are slower on a CPU (benchmarks/lcsc.py). All candidates see the same noise and
labels.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from threadpoolctl import threadpool_limits

from cm_jax import samplers
from cm_jax.lcsc import measure, storage
from cm_jax.lcsc.criterion import Criterion
from cm_jax.lcsc.measure import Measured
from cm_jax.lcsc.space import ONE, Space
from cm_jax.lcsc.storage import Placed
from cm_jax.metrics.features import round_uint8
from cm_jax.samplers import GenerativeModel, Sampler
from cm_jax.sharding import AXIS, by_example, replicated, to_host
from cm_jax.types import Array, Params

Values = Callable[[np.ndarray, int], np.ndarray]
Fitness = Callable[[np.ndarray, int], np.ndarray]


def make_values(
    model: GenerativeModel,
    sampler: Sampler,
    criterion: Criterion,
    placed: Placed,
    *,
    samples: int,
    batch_size: int,
    space: Space = ONE,
    at_once: int = 16,
    rounding: Callable[[Array], Array] = round_uint8,
) -> Values:
    """Returns `values(coefficients [P, G K], seed) -> [P, M]`: each metric of each candidate.

    The K coefficients of each group of a candidate should sum to 1; if they do not, the last snapshot
    gets the difference. A candidate whose samples are not finite has NaN.

    The moments of the features are summed on the device in float32 about the reference's mean, and
    only they come to the host, where the distance is computed in float64. A metric that needs the
    features themselves brings those to the host.

    Args:
      criterion: the metrics; their weights play no part here.
      samples: a multiple of `batch_size`.
      at_once: how many candidates' weights are in memory together, rounded up to a multiple of the
        devices; as many share one reading of streamed snapshots.
      rounding: of the samples.
    """
    if samples % batch_size:
        raise ValueError(f'{samples} samples are no multiple of the batch of {batch_size}')
    mesh = placed.mesh
    measure_one = _make_measure(model, sampler, criterion, samples, batch_size, rounding)
    program = _on_each_device(measure_one, mesh)
    combined = storage.make_combine(placed, space, by_example(mesh))
    extractors = [part.space.extractor for part in criterion.parts]
    weights = jax.device_put([e.params for e in extractors], replicated(mesh))
    each = -(-at_once // mesh.size)  # candidates a device
    block_size = each * mesh.size

    def values_of_block(rows: np.ndarray, seed: int) -> list[list[float]]:
        padded = np.pad(rows, ((0, block_size - len(rows)), (0, 0)), 'edge')
        # Candidate i is number i // devices of device i % devices.
        candidates = combined(padded.reshape(each, mesh.size, -1).swapaxes(0, 1))
        turns = range(-(-len(rows) // mesh.size))
        queued = [program(weights, np.int32(seed), np.int32(i), candidates) for i in turns]
        found: list[list[float]] = []
        with few_threads(mesh):
            for of_devices in queued:
                on_host = jax.tree.map(to_host, of_devices)
                for device in range(min(mesh.size, len(rows) - len(found))):
                    measured = jax.tree.map(lambda leaf, i=device: leaf[i], on_host)
                    found.append(measure.values(criterion, samples, measured))
        return found

    def values(coefficients: np.ndarray, seed: int) -> np.ndarray:
        firsts = range(0, len(coefficients), block_size)
        blocks = [values_of_block(coefficients[i : i + block_size], seed) for i in firsts]
        return np.concatenate(blocks)

    return values


def make_fitness(criterion: Criterion, values: Values, units: np.ndarray | float = 1.0) -> Fitness:
    """Returns `fitness(coefficients [P, G K], seed) -> scores [P]`; lower is better.

    `units` [M] are those of the criterion's metrics. A candidate whose samples are not finite scores
    NaN.
    """
    return lambda coefficients, seed: criterion.score(values(coefficients, seed), np.array(units))


def few_threads(mesh: Mesh) -> threadpool_limits:
    """Returns a context for work on the host beside that of the devices.

    Where the devices are the host's cores, the threads of its BLAS would keep them from work.
    """
    return threadpool_limits(1 if mesh.devices.flat[0].platform == 'cpu' else None, 'blas')


def _on_each_device(measure_one: Callable[..., Measured], mesh: Mesh) -> Callable:
    """Returns `program(weights, seed, i, candidates)`: each device measures its candidate number i."""

    def of_device(weights: list[Params], seed: Array, i: Array, candidates: Params) -> Measured:
        params = jax.tree.map(lambda leaf: leaf[0, i], candidates)
        return jax.tree.map(lambda leaf: leaf[None], measure_one(params, weights, seed))

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
    model: GenerativeModel,
    sampler: Sampler,
    criterion: Criterion,
    samples: int,
    batch_size: int,
    rounding: Callable[[Array], Array],
) -> Callable[..., Measured]:
    """Returns `measure_one(params, weights, seed)`: all that is measured of a candidate's samples.

    `weights` are those of the extractors.
    """

    parts = criterion.parts

    def step(
        params: Params, weights: list[Params], seed: Array, totals: list, first: Array
    ) -> tuple[list, list[Array]]:
        indices = first + jnp.arange(batch_size)
        x0 = samplers.generate(sampler, model, params, seed, indices)
        measured = measure.of_images(criterion, weights, x0, rounding)
        sums = [m for part, m in zip(parts, measured) if not part.needs_features]
        extracted = [m[0] for part, m in zip(parts, measured) if part.needs_features]
        return jax.tree.map(jnp.add, totals, sums), extracted

    def measure_one(params: Params, weights: list[Params], seed: Array) -> Measured:
        dims = [part.space.extractor.dim for part in parts if not part.needs_features]
        zeros = [(jnp.zeros(dim), jnp.zeros((dim, dim))) for dim in dims]
        body = functools.partial(step, params, weights, seed)
        totals, batches = jax.lax.scan(body, zeros, jnp.arange(0, samples, batch_size))
        sums, extracted = iter(totals), iter(batches)
        return tuple(
            (next(extracted).reshape(samples, -1),) if part.needs_features else next(sums)
            for part in parts
        )

    return measure_one
