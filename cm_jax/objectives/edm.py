"""EDM: denoising diffusion, the teacher (Karras et al., arXiv 2206.00364, table 1); EDM2's loss.

    E_{t, x0, eps}  lambda(t) |D(x_t, t) - x0|^2,  ln t ~ N(p_mean, p_std^2),
    lambda(t) = 1/t^2 + 1/sigma_data^2

with the squared difference averaged over the values of an image. x0 is an image of the data. With
augmentation (core.augment; appendix F.2) x0 is the augmented image, and D gets, beside t, labels that
say how it was augmented.

With `uncertainty` the loss l of a level is weighted as in EDM2 (arXiv 2312.02696, equation 21):

    l / exp(u(t)) + u(t)

where u is a small network of t beside D, trained with it. At the minimum over u it is 1 + ln l, with
u = ln l, so that every level counts alike, whatever its loss.

| paper | here |
| sigma | t |
| D_theta, F_theta | denoise, net |
| P_mean, P_std | p_mean, p_std |
| sigma_data | sigma_data |
| augment probability (table 7) | augment |
| u(sigma), logvar (EDM2) | log_variance |
"""

import jax
import jax.numpy as jnp

from cm_jax.bounds import Positive, Real, Share
from cm_jax.core import augment as augmentation
from cm_jax.core import noise, weighting
from cm_jax.core.distance import l2
from cm_jax.core.precond import Scalings, edm_scalings, precondition
from cm_jax.core.process import Process, perturb
from cm_jax.errors import UserError
from cm_jax.objectives import Objective, keep_refs, no_refs, require_process
from cm_jax.types import Array, Batch, Key, LogVarianceFn, Metrics, NetFn, Params

AUGMENT = 0xA06  # folded into the key of a training step: gives the key of its augmentation


def informed(net: NetFn, labels: Array) -> NetFn:
    """Returns `net` as it is when it is given these augmentation labels [B, n].

    They follow the noise level in `cond`.
    """

    def augmented_net(
        params: Params, x: Array, cond: Array, label: Array | None = None, key: Key | None = None
    ) -> Array:
        return net(params, x, jnp.concatenate([cond, labels], axis=1), label, key)

    return augmented_net


def make(
    net: NetFn,
    *,
    process: Process,
    sigma_data: Positive,
    p_mean: Real = -1.2,
    p_std: Positive = 1.2,
    augment: Share = 0.0,
    uncertainty: bool = False,
    log_variance: LogVarianceFn | None = None,
) -> Objective:
    """Returns EDM's objective; the defaults are the paper's, without its augmentation.

    Raises UserError on another process, and on `uncertainty` without `log_variance`.

    Args:
      net: the network that is trained.
      process: 've'.
      sigma_data: the standard deviation of the data in [-1, 1], > 0.
      p_mean, p_std: the mean and the standard deviation of ln t; p_std > 0.
      augment: the probability of each augmentation, in [0, 1]; 0.12 in the paper's training on
        CIFAR-10. 0 means no augmentation. Otherwise the network must accept the augmentation labels.
      uncertainty: whether the loss has EDM2's weights. The metric 'distance' then is the loss without
        them.
      log_variance: the function u of the network, or None if it has none.
    """
    require_process('edm', process, 've')
    if uncertainty and log_variance is None:
        raise UserError(
            'config.objective.uncertainty is True, and the network estimates none: config.model.name '
            "must be 'edm2_unet'"
        )

    def scalings(t: Array) -> Scalings:
        return edm_scalings(t, sigma_data)

    def loss(
        params: Params, refs: tuple, teacher: Params, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, Metrics]:
        del refs, teacher, step
        x0, label, trained = batch['image'], batch['label'], net
        if augment:
            key_augment = jax.random.fold_in(key, AUGMENT)
            x0, augment_labels = augmentation.augment(key_augment, x0, augment)
            trained = informed(net, augment_labels)
        key_t, key_eps, key_drop = jax.random.split(key, 3)
        t = noise.lognormal(key_t, x0.shape[0], p_mean, p_std)
        x_t = perturb(process, x0, jax.random.normal(key_eps, x0.shape), t)
        x0_hat = precondition(trained, scalings)(params, x_t, t, label, key_drop)
        plain = weighting.karras(t, t, sigma_data) * l2(x0_hat, x0)
        if log_variance is None or not uncertainty:
            return plain, {'t': t}
        u = log_variance(params, scalings(t).noise[:, None])
        return plain / jnp.exp(u) + u, {'t': t, 'distance': plain}

    return Objective(
        denoise=precondition(net, scalings),
        init=no_refs,
        loss=loss,
        update=keep_refs,
        augment_dim=augmentation.LABELS if augment else 0,
    )
