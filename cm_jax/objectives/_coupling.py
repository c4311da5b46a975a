"""Which noise goes with which image, for the objectives on rectified flow (no objective by itself).

Independent: the noise x1 ~ N(0, I) does not depend on the image x0. Learned: a network reads the image
and gives the mean and the log variance of a prior q(x1 | x0), from which the noise is drawn. Sampling
starts from N(0, I), so the distance of the prior from N(0, I) is a part of the loss:

    x1 = mean + exp(logvar / 2) eps,   KL = 1/2 mean(mean^2 + exp(logvar) - 1 - logvar)

with the mean over the values of an image. The method is that of Lee et al. (arXiv 2301.12003), in the
form that Catch-Up Distillation (arXiv 2305.10769) uses. The gradient of the loss reaches the prior's
network through x1, so that both networks learn from one loss.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from cm_jax.errors import UserError
from cm_jax.types import Array, Key, Metrics, NetFn, Params

PRIOR_WEIGHT = 20.0  # arXiv 2305.10769
# (params, x0, key) -> (noise x1 of x0's shape, the prior's part of the loss [B], metrics)
Coupling = Callable[[Params, Array, Key], tuple[Array, Array, Metrics]]


def kl_to_normal(mean: Array, log_variance: Array) -> Array:
    """Returns KL(N(mean, exp(log_variance)) | N(0, 1)), averaged over an example's values.

    Shapes: [B,...] -> [B].
    """
    kl = (mean**2 + jnp.exp(log_variance) - 1 - log_variance) / 2
    return jnp.mean(kl.reshape(kl.shape[0], -1), axis=1)


def independent(params: Params, x0: Array, key: Key) -> tuple[Array, Array, Metrics]:
    """Returns noise x1 ~ N(0, I) that does not depend on the image, no loss and no metrics."""
    del params
    return jax.random.normal(key, x0.shape), jnp.zeros(x0.shape[0]), {}


def make_coupling(prior: NetFn | None, prior_weight: float | None = None) -> Coupling:
    """Returns the coupling that the network `prior` learns, or `independent` if it is None.

    Raises UserError if `prior_weight` is given without a prior.

    Args:
      prior: a network with two heads, the mean and the log variance. It is called at t = 1, without
        labels.
      prior_weight: the factor of the KL in the loss, >= 0; None means the paper's, 20.
    """
    if prior is None:
        if prior_weight is not None:
            raise UserError(
                f'config.objective.prior_weight {prior_weight} needs a learned prior: set config.prior'
            )
        return independent
    weight = PRIOR_WEIGHT if prior_weight is None else prior_weight

    def learned(params: Params, x0: Array, key: Key) -> tuple[Array, Array, Metrics]:
        key_eps, key_drop = jax.random.split(key)
        ones = jnp.ones((x0.shape[0], 1))
        mean, log_variance = jnp.split(prior(params, x0, ones, None, key_drop), 2, axis=-1)
        x1 = mean + jnp.exp(log_variance / 2) * jax.random.normal(key_eps, x0.shape)
        kl = kl_to_normal(mean, log_variance)
        return x1, weight * kl, {'kl': kl}

    return learned
