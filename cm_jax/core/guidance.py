"""Guidance: a denoiser is pushed away from a worse prediction, which is its own without the label
(classifier-free guidance) or that of another network (autoguidance)."""

from cm_jax.errors import UserError
from cm_jax.types import Array, DenoiseFn, Key, Params


def guided(denoise: DenoiseFn, weight: float) -> DenoiseFn:
    """Returns the guided denoiser, which evaluates the network twice.

    D_w(x, t, label) = D(x, t, none) + weight (D(x, t, label) - D(x, t, none))

    It is equation 6 of Ho & Salimans (arXiv 2207.12598), whose w is weight - 1. With weight 1 it is
    `denoise` itself, and with weight 0 the prediction without labels; a weight above 1 makes classes
    more distinct. The network has to be trained both with and without labels (`label_dropout` of the
    networks). Both evaluations have the same key, hence the same dropout mask. The guided denoiser
    raises UserError if it is called without a label, unless the weight is 1.
    """
    if weight == 1:
        return denoise

    def combined(
        params: Params, x: Array, t: Array, label: Array | None = None, key: Key | None = None
    ) -> Array:
        if label is None:
            raise UserError(f'guidance (weight {weight:g}) needs labels, and none were given')
        without = denoise(params, x, t, None, key)
        return without + weight * (denoise(params, x, t, label, key) - without)

    return combined


def autoguided(denoise: DenoiseFn, guide: DenoiseFn, weight: float) -> DenoiseFn:
    """Returns the denoiser D that a worse one guides; each call evaluates both networks.

    D_w(x, t, label) = D_guide(x, t, label) + weight (D(x, t, label) - D_guide(x, t, label))

    It is the autoguidance of Karras et al. (arXiv 2406.02507), whose guide is a smaller network or one
    that was trained for a shorter time. The parameters of the result are the pair (those of D, those of
    the guide). With weight 1 it is D, and the guide is not evaluated.
    """

    def combined(
        params: Params, x: Array, t: Array, label: Array | None = None, key: Key | None = None
    ) -> Array:
        own, of_guide = params
        if weight == 1:
            return denoise(own, x, t, label, key)
        worse = guide(of_guide, x, t, label, key)
        return worse + weight * (denoise(own, x, t, label, key) - worse)

    return combined
