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
second time. Each evaluation is a program of its own, one forward and one back, and the sampler's own
arithmetic runs between them. In one program of all evaluations, XLA for CPUs computes every evaluation
again before it goes back through the first of them, in spite of jax.checkpoint: its memory grew by
71 MB with each (250 samples, the network of configs/digits_ect.py). So one evaluation is compiled too,
however many the sampler has.
"""

import functools
import itertools
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
    return samples * (4 * sampler.evaluations - (samples == batch_size))


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
    mesh, several = placed.mesh, samples > batch_size
    extractors = [part.space.extractor for part in criterion.parts]
    weights = jax.device_put([e.params for e in extractors], replicated(mesh))
    combined = storage.make_combine(placed, space, replicated(mesh))
    products = storage.make_products(placed, space)
    numbers = itertools.count()  # of the network's evaluations

    def is_kept() -> bool:
        return next(numbers) % sampler.evaluations == sampler.evaluations - 1 and not several

    def apart(denoise: Callable[..., Array]) -> Callable[..., Array]:
        evaluate = _apart(lambda by, others: denoise(*by, *others), is_kept)
        return lambda params, x, *others: evaluate((params, x), others)

    in_programs = model._replace(
        denoise=apart(model.denoise),
        heads=tuple(apart(head) for head in model.heads),
        jump=model.jump and apart(model.jump),
    )
    of_images = _apart(
        lambda x0, weights: measure.of_images(criterion, weights, x0, rounding),
        lambda: not several,
    )

    @jax.jit
    def indices(first: Array) -> Array:
        return jax.lax.with_sharding_constraint(first + jnp.arange(batch_size), by_example(mesh))

    def of_batch(seed: Array, first: int, params: Params) -> Measured:
        x0 = samplers.generate(sampler, in_programs, params, seed, indices(first), unroll=True)
        return of_images(x0, weights)

    add = jax.jit(lambda a, b: jax.tree.map(jnp.add, a, b), donate_argnums=0)

    def differentiate(candidate: np.ndarray, seed: int, first: int) -> Derivative:
        params = jax.tree.map(lambda leaf: leaf[0, 0], combined(candidate[None, None]))
        pulls, total = [], None
        for start in range(first, first + samples, batch_size):
            sums, pull = jax.vjp(functools.partial(of_batch, jnp.int32(seed), start), params)
            pulls.append(pull)
            total = sums if total is None else add(total, sums)
        with few_threads(mesh):
            score, by_sums = _of_sums(criterion, samples, jax.tree.map(to_host, total), units)
        by_weights = None
        while pulls:  # each is let go as soon as it was used
            of_one = pulls.pop()(by_sums)[0]
            by_weights = of_one if by_weights is None else add(by_weights, of_one)
        return Derivative(score, products(by_weights))

    return differentiate


def _apart(
    function: Callable[[Any, Any], Any], is_kept: Callable[[], bool]
) -> Callable[[Any, Any], Any]:
    """Returns function(by, others), and its derivative by the leaves of `by`, in programs of their own.

    It is called outside of other programs. Where is_kept(), asked at each call, all is kept that the
    way back needs; else the arguments alone are kept, and the way back begins by computing the rest
    again.
    """
    forward = jax.jit(function)
    linear = jax.jit(lambda by, others: jax.vjp(lambda by: function(by, others), by))
    back = jax.jit(lambda pull, cotangents: pull(cotangents))

    def keep(by: Any, others: Any) -> tuple[Any, Any]:
        if is_kept():
            value, pull = linear(by, others)
            return value, (pull, None)
        return forward(by, others), (None, (by, others))

    def pull_back(kept: Any, cotangents: Any) -> tuple[Any, None]:
        pull, arguments = kept
        return *back(pull or linear(*arguments)[1], cotangents), None

    apart = jax.custom_vjp(lambda by, others: forward(by, others))
    apart.defvjp(keep, pull_back)
    return apart


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
