"""PD: progressive distillation (Salimans and Ho, arXiv 2202.00512, algorithm 2), in x0 form.

    E  w(t) | D_theta(x_t, t) - x0_target |^2

One step of the student, from t to s, matches two Euler (DDIM) steps of the teacher, from t over the
level m between them to s, which arrive at x_s:

    x0_target = (x_s - (s/t) x_t) / (1 - s/t)

since an Euler step with D goes to (s/t) x_t + (1 - s/t) D, for both processes. The levels are those
of the sampler `ddim@n`, s(i/n) for i < n, then 0. After `halve_every` steps the student becomes the
teacher and n halves, until n = 1. Student and first teacher start from one diffusion model
(config.init_from); `refs` are the teacher and n, so that a step that is passed over, as not finite,
changes neither of them alone. The optimiser's state is kept at a change of teacher, and
its rate is not annealed within a stage as the paper's is.

| paper | here |
| eta, theta | refs, params |
| N, the student's steps | pd_num_steps |
| t, t - 0.5/N, t - 1/N | t, m, s |
| w(lambda) = max(SNR, 1) | weight 'truncated_snr' |
"""

import jax
import jax.numpy as jnp

from cm_jax.core import noise, ode, weighting
from cm_jax.core.curriculum import pd_num_steps
from cm_jax.core.distance import l2
from cm_jax.core.precond import diffusion_scalings, precondition
from cm_jax.core.process import Process, expand, perturb
from cm_jax.errors import UserError
from cm_jax.objectives import Objective, require_process
from cm_jax.types import Array, Batch, Key, Metrics, NetFn, Params

Refs = dict[str, Params]


def make(
    net: NetFn,
    *,
    process: Process,
    sigma_data: float,
    halve_every: int,
    start_steps: int = 1024,
    weight: str = 'truncated_snr',
    rho: float | None = None,
) -> Objective:
    """Progressive distillation's objective.

    Args:
      halve_every: training steps a stage.
      start_steps: Euler steps of the first teacher, a power of 2, >= 2; log2(start_steps) stages
        lead to one step.
      weight: one of core.weighting.WEIGHTINGS.
      rho: of the grid; None is the process's, 7, or 1 on rectified flow: uniform.
    """
    require_process('pd', process, 've', 'rf')
    if halve_every < 1 or start_steps < 2 or start_steps & (start_steps - 1):
        raise UserError(
            'pd needs halve_every >= 1 and start_steps a power of 2, >= 2, got '
            f'halve_every={halve_every}, start_steps={start_steps}'
        )
    weigh = weighting.get(weight)
    denoise = precondition(net, diffusion_scalings(process, sigma_data))

    def level(i: Array, n: Array) -> Array:
        """s(i/n), and 0 at i = n."""
        s = noise.level(process, i, n + 1, rho)
        return jnp.where(i >= n, 0, s)

    def loss(
        params: Params, refs: Refs, teacher: Params, batch: Batch, key: Key, step: Array
    ) -> tuple[Array, Metrics]:
        del teacher, step
        x0, label = batch['image'], batch['label']
        key_t, key_eps, key_drop = jax.random.split(key, 3)
        n, before = refs['n'], refs['teacher']
        i = jax.random.randint(key_t, x0.shape[:1], 0, n)
        t, m, s = level(i, n), level(i + 0.5, n), level(i + 1, n)
        x_t = perturb(process, x0, jax.random.normal(key_eps, x0.shape), t)
        velocity = ode.pf_ode(lambda x, t: denoise(before, x, t, label))
        x_s = ode.euler(velocity, ode.euler(velocity, x_t, t, m), m, s)
        ratio = expand(s / t, x_t)
        target = jax.lax.stop_gradient((x_s - ratio * x_t) / (1 - ratio))
        d = l2(denoise(params, x_t, t, label, key_drop), target)
        return weigh(t, s, sigma_data) * d, {'t': t, 'gap': (t - s) / t, 'distance': d}

    def update(refs: Refs, params: Params, step: Array) -> Refs:
        n = pd_num_steps(step + 1, halve_every, start_steps)
        latest = lambda old, new: jnp.where(n < refs['n'], new, old)  # noqa: E731
        return {'teacher': jax.tree.map(latest, refs['teacher'], params), 'n': n}

    def init(params: Params) -> Refs:
        n = pd_num_steps(jnp.int32(0), halve_every, start_steps)
        return {'teacher': jax.tree.map(jnp.copy, params), 'n': n}

    return Objective(denoise, init, loss, update)
