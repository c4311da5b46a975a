"""What is measured of a batch of samples: in each feature space the moments of the features, or they
themselves where a metric needs them."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np

from cm_jax.lcsc.criterion import Criterion, Part
from cm_jax.metrics import features, moments
from cm_jax.metrics.features import round_uint8
from cm_jax.types import Array, Params

# Of each part of a criterion: the sums [d] and [d, d], or the features [n, d].
Measured = tuple[tuple[Array, ...], ...]
OnHost = Sequence[Sequence[np.ndarray]]  # the same


def shift(part: Part) -> Array:
    """Returns the vector [d] about which moments are summed: the mean of the reference."""
    return jnp.asarray(part.space.reference.moments.mean, jnp.float32)


def of_images(
    criterion: Criterion,
    weights: Sequence[Params],
    x0: Array,
    rounding: Callable[[Array], Array] = round_uint8,
) -> Measured:
    """Returns what each part of a criterion needs of the images x0 [B,H,W,C]; meant to be jitted.

    It is the sums of `moments.centred_sums`, or the features [B, d]. `weights` are those of the
    extractors, part by part.
    """

    def of_part(part: Part, params: Params) -> tuple[Array, ...]:
        extracted = features.of_samples(part.space.extractor, params, x0, rounding)
        return (extracted,) if part.needs_features else moments.centred_sums(extracted, shift(part))

    return tuple(of_part(part, params) for part, params in zip(criterion.parts, weights))


def values(criterion: Criterion, samples: int, measured: OnHost) -> list[float]:
    """Returns the M values of the metrics of `samples` samples, from all that was measured of them.

    A value is NaN if a sample is not finite.
    """
    found: list[float] = []
    for part, arrays in zip(criterion.parts, measured):
        if part.needs_features:
            found += part.of_features(arrays[0])
        else:
            sums, outer = arrays
            found += part.of_moments(moments.from_centred_sums(samples, sums, outer, shift(part)))
    return found
