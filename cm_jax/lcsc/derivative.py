"""The derivative of a search's score by the coefficients, exactly and for the price of training.

    theta(c) = theta_K + sum_k c_k (theta_k - theta_K)     weights            storage.make_combine
    x_i      = sample(theta, noise_i)                      samples            samplers.generate
    s, S     = sums of features of x_1 .. x_n              moments            metrics.moments
    score    = sum_m w_m distance_m(s, S) / u_m            on the host        criterion, metrics.frechet

The way back: the distance's derivative by the sums in closed form (float64, on the host), that by the
weights batch by batch through extractor and sampler, and that by the coefficients as K inner products
with the derivative by the weights.

It costs n samples forward, and forward and back once more: an evaluation of the sampler keeps its
input alone for the way back, and is computed a second time there, so that what grows with n and with
the sampler's evaluations is no more than images. The very last evaluation of one single batch needs no
second time. Loops of samplers are written out, because the derivative of a scan is slow in XLA's code
for CPUs. Measured in the time of the processor, in scores of a candidate on as many samples (1,000 in
one batch, K = 35, the run of configs/digits_ect.py, 2 cores of an AMD EPYC with other work): 3.3 with
`onestep`, and 7.1 with `dpm3@9`, where 3.9 are counted.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cm_jax import samplers
from cm_jax.errors import UserError
from cm_jax.lcsc import measure, storage
from cm_jax.lcsc.criterion import Criterion
from cm_jax.lcsc.fitness import few_threads
from cm_jax.lcsc.measure import Measured, OnHost
from cm_jax.lcsc.space import ONE, Space
from cm_jax.lcsc.storage import Placed
from cm_jax.metrics import moments
from cm_jax.metrics.features import round_straight_through
from cm_jax.samplers import GenerativeModel, Sampler
from cm_jax.sharding import by_example, replicated, to_host
from cm_jax.types import Array, Params


class Derivative(NamedTuple):
    """The score of a candidate, and its derivative by the coefficients."""

    score: float
    gradient: np.ndarray  # [G, K] float64


Differentiate = Callable[[np.ndarray, int, int], Derivative]


def check(metric: Iterable[str]) -> None:
    """Raises UserError unless all metrics are Fréchet distances, whose derivative is known."""
    for name in metric:
        if name.split('_')[0] not in ('fid', 'fd'):
            raise UserError(
                f'the search method gradient takes Fréchet distances (fid, fd_lenet, ...), and {name} '
                'is none'
            )


def network_passes(sampler: Sampler, samples: int, batch_size: int) -> int:
    """Returns the network evaluations of one derivative: 1 for a pass forward, 2 for one back.

    Passes that are computed a second time are counted again.
    """
    again = sampler.evaluations
    if samples == batch_size:
        again -= sampler.evaluations // _calls(sampler)
    return samples * (3 * sampler.evaluations + again)


def make_derivative(
    model: GenerativeModel,
    sampler: Sampler,
    criterion: Criterion,
    placed: Placed,
    *,
    samples: int,
    batch_size: int,
    space: Space = ONE,
    units: np.ndarray | float = 1.0,
    rounding: Callable[[Array], Array] = round_straight_through,
) -> Differentiate:
    """Returns `differentiate(candidate [G K], seed, first) -> Derivative`.

    The score is that of the samples number first .. first + samples - 1 of the stream `seed`, made on
    all devices together, each a part of every batch. It and the derivative are NaN if a sample is not
    finite.

    Args:
      criterion: weighted Fréchet distances, as `check` demands.
      samples: a multiple of `batch_size`, which is a multiple of the number of devices.
      units: those of the criterion's metrics.
      rounding: of the samples, and its derivative.
    """
    mesh, calls = placed.mesh, _calls(sampler)
    several = samples > batch_size
    extractors = [part.space.extractor for part in criterion.parts]
    weights = jax.device_put([e.params for e in extractors], replicated(mesh))
    combined = storage.make_combine(placed, space, replicated(mesh))
    products = storage.make_products(placed, space)

    def of_batch(params: Params, weights: list[Params], seed: Array, first: Array) -> Measured:
        indices = jax.lax.with_sharding_constraint(first + jnp.arange(batch_size), by_example(mesh))
        x0 = samplers.generate(
            sampler, model, params, seed, indices, lambda i: several or i < calls - 1
        )

        def of_images(x0: Array) -> Measured:
            return measure.of_images(criterion, weights, x0, rounding)

        return (jax.checkpoint(of_images) if several else of_images)(x0)

    @jax.jit
    def forward(params: Params, weights: list[Params], seed: Array, first: Array) -> Any:
        return jax.vjp(lambda params: of_batch(params, weights, seed, first), params)

    @jax.jit
    def back(pull: Callable[[Measured], tuple[Params]], by_sums: Measured) -> Params:
        return pull(by_sums)[0]

    add = jax.jit(lambda a, b: jax.tree.map(jnp.add, a, b), donate_argnums=0)

    def differentiate(candidate: np.ndarray, seed: int, first: int) -> Derivative:
        params = jax.tree.map(lambda leaf: leaf[0, 0], combined(candidate[None, None]))
        batches = range(first, first + samples, batch_size)
        pulls, total = [], None
        for start in batches:
            sums, pull = forward(params, weights, np.int32(seed), np.int32(start))
            pulls.append(pull)
            total = sums if total is None else add(total, sums)
        with few_threads(mesh):
            score, by_sums = _of_sums(criterion, samples, jax.tree.map(to_host, total), units)
        by_weights = None
        while pulls:  # each is let go as soon as it was used
            of_one = back(pulls.pop(), by_sums)
            by_weights = of_one if by_weights is None else add(by_weights, of_one)
        return Derivative(score, products(by_weights))

    return differentiate


def _calls(sampler: Sampler) -> int:
    """Returns how often a sampler calls its denoiser, which guidance makes two evaluations each."""
    return sampler.evaluations // (1 if sampler.guidance == 1 else 2)


def _of_sums(
    criterion: Criterion, samples: int, total: OnHost, units: np.ndarray | float
) -> tuple[float, OnHost]:
    """Returns the score of samples from the sums of their features, and its derivative by the sums."""
    divided = np.broadcast_to(units, len(criterion.parts))
    score = 0.0
    by_sums: list[tuple[np.ndarray, ...]] = []
    for part, (sums, outer), unit in zip(criterion.parts, total, divided):
        (weight,) = part.weights.values()
        found = moments.from_centred_sums(samples, sums, outer, measure.shift(part))
        slope = part.frechet.slope(found)
        score += weight / unit * slope.distance
        by_mean, by_covariance = (weight / unit * d for d in (slope.mean, slope.covariance))
        cotangents = moments.centred_sums_cotangents(samples, sums, by_mean, by_covariance)
        by_sums.append(tuple(c.astype(sums.dtype) for c in cotangents))
    return score, tuple(by_sums)
