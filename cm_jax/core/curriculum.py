"""Curricula: pure in the training step, which may be traced, so that no stage change compiles."""

import jax
import jax.numpy as jnp
import numpy as np

from cm_jax.types import Array


def _ct_gaps(step: Array, total_steps: int, s0: int, s1: int) -> Array:
    """Number of gaps in CT's grid, one less than its levels."""
    done = jnp.asarray(step, float) / total_steps
    root = jnp.sqrt(done * ((s1 + 1) ** 2 - s0**2) + s0**2)
    return jnp.maximum(1, jnp.ceil(root - 1))


def ct_num_scales(step: Array, total_steps: int, s0: int, s1: int) -> Array:
    """Levels in the grid of consistency training, as its loss uses them (arXiv 2303.01469, app. C):

    N(k) = max(1, ceil(sqrt(k/K ((s1 + 1)^2 - s0^2) + s0^2) - 1)) + 1

    from s0 at step k = 0 to s1 + 1 at k = K = total_steps. int32, scalar.
    """
    return _ct_gaps(step, total_steps, s0, s1).astype(jnp.int32) + 1


def ct_target_ema(step: Array, total_steps: int, s0: int, s1: int, mu0: float) -> Array:
    """Rate of CT's target network: mu(k) = exp(s0 ln(mu0) / (N(k) - 1)) (arXiv 2303.01469, app. C).

    With N(k) of `ct_num_scales`; mu0 in (0, 1). Rises from mu0^(s0/(s0-1)) towards 1.
    """
    return jnp.exp(s0 * jnp.log(mu0) / _ct_gaps(step, total_steps, s0, s1))


def ict_num_scales(step: Array, total_steps: int, s0: int, s1: int) -> Array:
    """Levels in iCT's grid (arXiv 2310.14189, section 3.4): the gaps double in stages.

    N(k) = min(s0 2^floor(k/K'), s1) + 1,  K' = floor(K / (log2(floor(s1/s0)) + 1))

    s0 = 10, s1 = 1280: eight stages, from 10 gaps (11 levels) to 1280 (1281). int32, scalar.
    """
    stage_steps = max(1, int(total_steps / (np.log2(s1 // s0) + 1)))
    stages = int(np.ceil(np.log2(s1 / s0)))  # from here on s1 bounds it
    stage = jnp.minimum(step // stage_steps, stages)
    return jnp.minimum(s0 * 2**stage, s1).astype(jnp.int32) + 1


def pd_num_steps(step: Array, halve_every: int, start_steps: int) -> Array:
    """Steps that progressive distillation's student takes: half its teacher's, down to 1.

    n = max(1, start_steps / 2^(1 + floor(step / halve_every))) (arXiv 2202.00512, algorithm 2);
    start_steps, of the first teacher, is a power of 2. int32, scalar.
    """
    stage = jnp.minimum(step // halve_every, start_steps.bit_length())
    return jnp.maximum(1, start_steps // 2 ** (stage + 1)).astype(jnp.int32)


def ect_stage(step: Array, double_every: int) -> Array:
    """Stage of ECT's schedule: floor(step / double_every), from 0."""
    return step // double_every


def ect_r(t: Array, stage: Array, q: float, k: float = 8.0, b: float = 1.0) -> Array:
    """ECT's mapping from t to the smaller level r (arXiv 2406.14548, section 3; their code's form):

    r = t max(0, 1 - (1 + k sigmoid(-b t)) / q^(stage + 1))

    t [B] in (0, inf), stage an integer >= 0 (may be traced), q > 1. r = 0 is diffusion training; r
    approaches t as the stage grows. Returns [B].
    """
    n = 1 + k * jax.nn.sigmoid(-b * t)
    gap = n * jnp.asarray(q, t.dtype) ** -(jnp.asarray(stage, t.dtype) + 1)
    return t * jnp.maximum(0, 1 - gap)
