"""The fitness of a population: one jitted program that combines, samples and extracts features.

Candidates are spread over the devices of the mesh, and evaluated one after another on each: on
a CPU a loop over candidates is 1.8 times faster than `vmap`, whose convolutions with a kernel for each
candidate become grouped ones. All candidates see the same noise and labels.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from cm_jax import samplers
from cm_jax.core import tree
from cm_jax.metrics import features, frechet, moments
from cm_jax.scores import Reference, Subject
from cm_jax.sharding import AXIS, replicated
from cm_jax.types import Array, Extractor, Params


def make_fitness(
    subject: Subject,
    sampler: samplers.Sampler,
    extractor: Extractor,
    reference: Reference,
    stacked: Params,
    *,
    samples: int,
    batch_size: int,
    mesh: Mesh,
) -> Callable[[np.ndarray, int], np.ndarray]:
    """Returns `fitness(coefficients [P, K], seed) -> scores [P]`, Fréchet distances.

    `samples` must be a multiple of `batch_size`. The moments of the features are summed on the
    device in float32 about the reference's mean; the distance is taken on the host in float64. A
    candidate with non-finite samples scores NaN. The program takes one candidate a device, so no
    population size compiles again.
    """
    if samples % batch_size:
        raise ValueError(f'{samples} samples are no multiple of the batch of {batch_size}')
    shift = jnp.asarray(reference.moments.mean, jnp.float32)
    stacked, weights = jax.device_put((stacked, extractor.params), replicated(mesh))

    def one(
        stacked: Params, weights: Params, seed: Array, coefficients: Array
    ) -> tuple[Array, Array]:
        """The sums of one candidate [1, K], each with a leading 1."""
        params = tree.linear_combination(stacked, coefficients[0])

        def batch(total: tuple[Array, Array], first: Array) -> tuple[tuple[Array, Array], None]:
            x0 = samplers.generate(
                sampler,
                subject.denoise,
                params,
                subject.process.prior_std,
                subject.image_shape,
                subject.num_classes,
                seed,
                first + jnp.arange(batch_size),
            )
            found = features.of_samples(extractor, weights, x0)
            return jax.tree.map(jnp.add, total, moments.centred_sums(found, shift)), None

        zero = (jnp.zeros(extractor.dim), jnp.zeros((extractor.dim, extractor.dim)))
        total, _ = jax.lax.scan(batch, zero, jnp.arange(0, samples, batch_size))
        return jax.tree.map(lambda leaf: leaf[None], total)

    program = jax.jit(
        jax.shard_map(
            one,
            mesh=mesh,
            in_specs=(PartitionSpec(), PartitionSpec(), PartitionSpec(), PartitionSpec(AXIS)),
            out_specs=PartitionSpec(AXIS),
            check_vma=False,
        )
    )

    def fitness(coefficients: np.ndarray, seed: int) -> np.ndarray:
        count, size = len(coefficients), mesh.size
        rows = np.pad(np.asarray(coefficients, np.float32), ((0, -count % size), (0, 0)), 'edge')
        groups = [
            program(stacked, weights, jnp.int32(seed), rows[i : i + size])
            for i in range(0, count, size)
        ]
        sums, outers = (np.concatenate(parts)[:count] for parts in zip(*jax.device_get(groups)))
        found = [moments.from_centred_sums(samples, *pair, shift) for pair in zip(sums, outers)]
        return np.array([frechet.frechet_distance(m, reference.moments) for m in found])

    return fitness
