"""Curricula: pure in the training step, which may be traced, so that no stage change compiles."""

import jax
import jax.numpy as jnp

from cm_jax.types import Array


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
