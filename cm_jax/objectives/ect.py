"""ECT: easy consistency tuning of a diffusion model (Geng et al., arXiv 2406.14548).

    E  w(t, r) d( D(x_t, t), stopgrad D(x_r, r) ),   ln t ~ N(p_mean, p_std^2),
    r = t max(0, 1 - (1 + k sigmoid(-b t)) / q^(stage + 1)),  stage = floor(step / double_every)

x_t and x_r share the noise, both passes share the dropout mask, the target uses the current weights,
and where r = 0 the target is x0: diffusion training is the first stage's limit. d is the Euclidean
distance (c = 0) or pseudo-Huber.

| paper and code | here |
| t, r, q, k, b, c | the same |
| f_theta, n(t) | denoise, 1 + k sigmoid(-b t) |
| double (ticks) | double_every (steps) |
| P_mean, P_std | p_mean, p_std |
| w(t, r) = 1/(t - r) | weighting 'inverse_gap' (CIFAR-10) |
| w(t) = 1/t^2 + 1/sigma_data^2 | weighting 'edm' (ImageNet-64) |
"""

import jax
import jax.numpy as jnp

from cm_jax.core import noise, weighting
from cm_jax.core.curriculum import ect_r, ect_stage
from cm_jax.core.distance import pseudo_huber
from cm_jax.core.precond import boundary_scalings, edm_scalings, precondition
from cm_jax.core.process import Process, expand, perturb
from cm_jax.errors import UserError
from cm_jax.objectives.base import Objective, keep_refs, no_refs, require_process
from cm_jax.types import Array, Batch, DenoiseFn, Key, Metrics, NetFn, Params


def consistency_pair(
    denoise: DenoiseFn,
    process: Process,
    params: Params,
    x0: Array,
    eps: Array,
    t: Array,
    r: Array,
    label: Array | None = None,
    key: Key | None = None,
) -> tuple[Array, Array]:
    """(D(x_t, t), target): the target is stopgrad D(x_r, r), and x0 where r = 0. Shapes of x0.

    Both passes get the same key, hence the same dropout mask.
    """
    clean = r <= 0
    r = jnp.where(clean, t, r)  # any legal level: the pass is not used there
    student = denoise(params, perturb(process, x0, eps, t), t, label, key)
    target = denoise(params, perturb(process, x0, eps, r), r, label, key)
    return student, jax.lax.stop_gradient(jnp.where(expand(clean, x0), x0, target))


def make(
    net: NetFn,
    *,
    process: Process,
    sigma_data: float,
    double_every: int,
    p_mean: float = -1.1,
    p_std: float = 2.0,
    q: float = 2.0,
    k: float = 8.0,
    b: float = 1.0,
    c: float = 0.0,
    weight: str = 'inverse_gap',
) -> Objective:
    """ECT's objective; the defaults are the paper's for CIFAR-10.

    Args:
      double_every: steps a stage of the curriculum; the gap t - r is divided by q at each.
      q: > 1. k >= 0 and b > 0 shape the gap over t. c >= 0: of the pseudo-Huber distance.
      weight: one of core.weighting.WEIGHTINGS.
    """
    require_process('ect', process, 've')
    if double_every < 1 or q <= 1 or k < 0 or b <= 0 or c < 0:
        raise UserError(
            'ect needs double_every >= 1, q > 1, k >= 0, b > 0 and c >= 0, got '
            f'double_every={double_every}, q={q}, k={k}, b={b}, c={c}'
        )
    weigh = weighting.get(weight)
    trained = precondition(net, lambda t: edm_scalings(t, sigma_data))
    denoise = precondition(net, lambda t: boundary_scalings(t, sigma_data, process.t_min))

    def loss(
        params: Params, refs: tuple, teacher: Params, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, Metrics]:
        del refs, teacher
        x0, label = batch['image'], batch['label']
        key_t, key_eps, key_drop = jax.random.split(key, 3)
        t = noise.lognormal(key_t, x0.shape[0], p_mean, p_std)
        r = ect_r(t, ect_stage(step, double_every), q, k, b)
        eps = jax.random.normal(key_eps, x0.shape)
        student, target = consistency_pair(trained, process, params, x0, eps, t, r, label, key_drop)
        distance = pseudo_huber(student, target, c)
        return weigh(t, r, sigma_data) * distance, {
            't': t,
            'gap': (t - r) / t,
            'distance': distance,
        }

    return Objective(denoise, no_refs, loss, keep_refs)
