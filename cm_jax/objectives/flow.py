"""Rectified flow: velocity matching on straight paths (Liu et al., arXiv 2209.03003, equation 1).

    E_{t, x0, x1}  | F(x_t, t) - (x1 - x0) |^2,   x_t = (1 - t) x0 + t x1

with the squared difference averaged over the values of an image. F is the velocity dx/dt, and
D(x, t) = x - t F(x, t). t is uniform in [t_min, t_max], or logit-normal (Esser et al., arXiv
2403.03206, section 3.1) where p_mean and p_std are given. The noise x1 does not depend on the image,
or it is drawn from a learned prior (config.prior; see _coupling.py).

| paper | here |
| X_1 (data), X_0 (noise), t | x0, x1, 1 - t: our t is the noise level |
| v | net |
"""

import jax

from cm_jax.bounds import NonNegative, Positive, Real
from cm_jax.core import noise
from cm_jax.core.distance import l2
from cm_jax.core.precond import flow_scalings, precondition
from cm_jax.core.process import Process, perturb
from cm_jax.errors import UserError
from cm_jax.objectives import Objective, keep_refs, no_refs, require_process
from cm_jax.objectives._coupling import make_coupling
from cm_jax.types import Array, Batch, Key, Metrics, NetFn, Params


def make(
    net: NetFn,
    *,
    process: Process,
    prior: NetFn | None = None,
    prior_weight: NonNegative | None = None,
    p_mean: Real | None = None,
    p_std: Positive | None = None,
) -> Objective:
    """Returns rectified flow's objective.

    Raises UserError on another process, on a prior_weight without a prior, and if only one of p_mean
    and p_std is given.

    Args:
      net: the network that is trained; its output is the velocity.
      process: 'rf'.
      prior: the network of a learned coupling. None: the noise does not depend on the image.
      prior_weight: the factor of the prior's KL in the loss, >= 0. None takes the paper's, 20. To be
        set only where there is a prior.
      p_mean, p_std: the mean and the standard deviation of the logit of t; p_std > 0. Where both are
        None, t is uniform.
    """
    require_process('flow', process, 'rf')
    if (p_mean is None) != (p_std is None):
        raise UserError(
            'flow needs both p_mean and p_std (t is logit-normal) or neither (uniform), got '
            f'p_mean={p_mean}, p_std={p_std}'
        )
    couple = make_coupling(prior, prior_weight)

    def loss(
        params: Params, refs: tuple, teacher: Params, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, Metrics]:
        del refs, teacher, step
        x0, label = batch['image'], batch['label']
        key_t, key_x1, key_drop = jax.random.split(key, 3)
        if p_mean is None or p_std is None:
            u = jax.random.uniform(key_t, x0.shape[:1])
        else:
            u = noise.logit_normal(key_t, x0.shape[0], p_mean, p_std)
        t = process.t_min + (process.t_max - process.t_min) * u
        x1, prior_loss, metrics = couple(params, x0, key_x1)
        velocity = net(params, perturb(process, x0, x1, t), t[:, None], label, key_drop)
        return l2(velocity, x1 - x0) + prior_loss, {'t': t, **metrics}

    return Objective(
        denoise=precondition(net, flow_scalings), init=no_refs, loss=loss, update=keep_refs
    )
