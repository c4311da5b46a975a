"""Classifier-free guidance: a denoiser pushed away from what it says without the label."""

from cm_jax.errors import UserError
from cm_jax.types import Array, DenoiseFn, Key, Params


def guided(denoise: DenoiseFn, weight: float) -> DenoiseFn:
    """D_w(x, t, label) = D(x, t, none) + weight (D(x, t, label) - D(x, t, none)); two evaluations.

    Weight 1 is `denoise` itself, 0 the network without labels, more than 1 sharper classes. It takes
    a network that saw both in training (`label_dropout` of the networks). The same key, hence the
    same dropout mask, in both. Ho & Salimans (arXiv 2207.12598), equation 6, whose w is weight - 1.
    Raises UserError, when called with weight other than 1, if there is no label.
    """
    if weight == 1:
        return denoise

    def combined(
        params: Params, x: Array, t: Array, label: Array | None = None, key: Key | None = None
    ) -> Array:
        if label is None:
            raise UserError(f'guidance (weight {weight:g}) needs labels, and there are none')
        without = denoise(params, x, t, None, key)
        return without + weight * (denoise(params, x, t, label, key) - without)

    return combined
