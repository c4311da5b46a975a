"""Curricula: quantities of training that change with the training step.

Each is a pure function of the step. The step may be a traced value, so a change of stage does not
compile the train step again.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from cm_jax.types import Array


def _ct_gaps(step: Array, total_steps: int, s0: int, s1: int) -> Array:
    """Returns the number of gaps in CT's grid: one less than the number of its levels."""
    done = jnp.asarray(step, float) / total_steps
    root = jnp.sqrt(done * ((s1 + 1) ** 2 - s0**2) + s0**2)
    return jnp.maximum(1, jnp.ceil(root - 1))


def ct_num_scales(step: Array, total_steps: int, s0: int, s1: int) -> Array:
    """Returns the number of levels in the grid of consistency training, a scalar int32.

    N(k) = max(1, ceil(sqrt(k/K ((s1 + 1)^2 - s0^2) + s0^2) - 1)) + 1

    (arXiv 2303.01469, appendix C, in the form that its loss uses.) N rises from s0 at step k = 0 to
    s1 + 1 at k = K = total_steps.
    """
    return _ct_gaps(step, total_steps, s0, s1).astype(jnp.int32) + 1


def ct_target_ema(step: Array, total_steps: int, s0: int, s1: int, mu0: float) -> Array:
    """Returns the EMA rate of the target network of consistency training, a scalar.

    mu(k) = exp(s0 ln(mu0) / (N(k) - 1))

    (arXiv 2303.01469, appendix C), with N(k) of `ct_num_scales` and mu0 in (0, 1). The rate rises
    from mu0^(s0/(s0-1)) towards 1.
    """
    return jnp.exp(s0 * jnp.log(mu0) / _ct_gaps(step, total_steps, s0, s1))


def ict_num_scales(step: Array, total_steps: int, s0: int, s1: int) -> Array:
    """Returns the number of levels in iCT's grid, whose gaps double in each stage; a scalar int32.

    N(k) = min(s0 2^floor(k/K'), s1) + 1,  K' = floor(K / (log2(floor(s1/s0)) + 1))

    (arXiv 2310.14189, section 3.4). With s0 = 10 and s1 = 1280 there are eight stages, from 10 gaps
    (11 levels) to 1280 gaps (1281 levels).
    """
    stage_steps = max(1, int(total_steps / (np.log2(s1 // s0) + 1)))
    stages = int(np.ceil(np.log2(s1 / s0)))  # from this stage on the number of gaps is s1
    stage = jnp.minimum(step // stage_steps, stages)
    return jnp.minimum(s0 * 2**stage, s1).astype(jnp.int32) + 1


def pd_num_steps(step: Array, halve_every: int | Sequence[int], start_steps: int) -> Array:
    """Returns the number of sampling steps of progressive distillation's student, a scalar int32.

    n = max(1, start_steps / 2^(1 + stage))

    (arXiv 2202.00512, algorithm 2): half the number of its teacher's steps, and at least 1.
    `start_steps` is the number of steps of the first teacher, a power of 2. The stage, from 0 on, is
    floor(step / halve_every), or with a sequence of lengths the number of stages that have ended.
    """
    if isinstance(halve_every, int):
        stage = jnp.minimum(step // halve_every, start_steps.bit_length())
    else:
        stage = jnp.sum(jnp.asarray(np.cumsum(halve_every)) <= step)
    return jnp.maximum(1, start_steps // 2 ** (stage + 1)).astype(jnp.int32)


def ect_stage(step: Array, double_every: int) -> Array:
    """Returns the stage of ECT's schedule, floor(step / double_every), which starts at 0."""
    return step // double_every


def ect_r(t: Array, stage: Array, q: float, k: float = 8.0, b: float = 1.0) -> Array:
    """Returns the smaller level r [B] of ECT for each level t [B].

    r = t max(0, 1 - (1 + k sigmoid(-b t)) / q^(stage + 1))

    (arXiv 2406.14548, section 3, in the form of its code). t is in (0, inf), q > 1, and the stage is
    an integer >= 0, which may be traced. r = 0 is diffusion training; r approaches t as the stage
    grows.
    """
    n = 1 + k * jax.nn.sigmoid(-b * t)
    gap = n * jnp.asarray(q, t.dtype) ** -(jnp.asarray(stage, t.dtype) + 1)
    return t * jnp.maximum(0, 1 - gap)
