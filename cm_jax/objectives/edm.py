"""EDM: denoising diffusion, the teacher (Karras et al., arXiv 2206.00364, table 1).

    E_{t, x0, eps}  lambda(t) |D(x_t, t) - x0|^2,  ln t ~ N(p_mean, p_std^2),
    lambda(t) = 1/t^2 + 1/sigma_data^2

with the squared difference averaged over the values of an image.

| paper | here |
| sigma | t |
| D_theta, F_theta | denoise, net |
| P_mean, P_std | p_mean, p_std |
| sigma_data | sigma_data |
"""

import jax

from cm_jax.core import noise, weighting
from cm_jax.core.distance import l2
from cm_jax.core.precond import edm_scalings, precondition
from cm_jax.core.process import Process, perturb
from cm_jax.objectives.base import Objective, keep_refs, no_refs, require_process
from cm_jax.types import Array, Batch, Key, Metrics, NetFn, Params


def make(
    net: NetFn,
    *,
    process: Process,
    sigma_data: float,
    p_mean: float = -1.2,
    p_std: float = 1.2,
) -> Objective:
    """EDM's objective; the defaults are the paper's. `sigma_data`: std of the data in [-1, 1]."""
    require_process('edm', process, 've')
    denoise = precondition(net, lambda t: edm_scalings(t, sigma_data))

    def loss(
        params: Params, refs: tuple, teacher: Params, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, Metrics]:
        del refs, teacher, step
        x0, label = batch['image'], batch['label']
        key_t, key_eps, key_drop = jax.random.split(key, 3)
        t = noise.lognormal(key_t, x0.shape[0], p_mean, p_std)
        x_t = perturb(process, x0, jax.random.normal(key_eps, x0.shape), t)
        x0_hat = denoise(params, x_t, t, label, key_drop)
        return weighting.karras(t, t, sigma_data) * l2(x0_hat, x0), {'t': t}

    return Objective(denoise, no_refs, loss, keep_refs)
