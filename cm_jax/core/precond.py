"""Preconditioning: the denoiser as a skip connection around the bare network.

D(x, t) = skip(t) x + out(t) F(in(t) x, noise(t))
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from cm_jax.core.process import Process, expand
from cm_jax.types import Array, DenoiseFn, Key, NetFn, Params


class Scalings(NamedTuple):
    """Four [B] arrays; `in_` is the paper's c_in (`in` is a keyword), `noise` its c_noise."""

    skip: Array
    out: Array
    in_: Array
    noise: Array


def edm_scalings(t: Array, sigma_data: float) -> Scalings:
    """EDM, table 1: skip = sd^2/(t^2+sd^2), out = t sd/sqrt(t^2+sd^2), in = 1/sqrt(t^2+sd^2),
    noise = ln(t)/4. t [B], positive."""
    total = t**2 + sigma_data**2
    return Scalings(
        skip=sigma_data**2 / total,
        out=t * sigma_data / jnp.sqrt(total),
        in_=1 / jnp.sqrt(total),
        noise=jnp.log(t) / 4,
    )


def consistency_scalings(t: Array, sigma_data: float, t_min: float) -> Scalings:
    """Consistency Models (arXiv 2303.01469), appendix C: D(x, t_min) = x exactly.

    skip = sd^2/((t-t_min)^2+sd^2), out = (t-t_min) sd/sqrt(t^2+sd^2), in as in EDM,
    noise = 250 ln(t + 1e-44). t [B], t >= t_min.
    """
    total = t**2 + sigma_data**2
    return Scalings(
        skip=sigma_data**2 / ((t - t_min) ** 2 + sigma_data**2),
        out=(t - t_min) * sigma_data / jnp.sqrt(total),
        in_=1 / jnp.sqrt(total),
        noise=250 * jnp.log(t + 1e-44),
    )


def boundary_scalings(t: Array, sigma_data: float, t_min: float) -> Scalings:
    """The boundary condition of `consistency_scalings` with EDM's noise input, ln(t)/4.

    What ECT samples with (arXiv 2406.14548): a network that was trained behind `edm_scalings`
    keeps its input, and D(x, t_min) = x holds exactly.
    """
    edm, boundary = edm_scalings(t, sigma_data), consistency_scalings(t, sigma_data, t_min)
    return edm._replace(skip=boundary.skip, out=boundary.out)


def flow_scalings(t: Array, t_min: float = 0.0) -> Scalings:
    """Rectified flow: D(x, t) = x - (t - t_min) F(x, t), and the noise input is t itself.

    With t_min = 0 the network F is the velocity dx/dt (arXiv 2209.03003), since D = x - t v for this
    process; with the process's t_min, D(x, t_min) = x and F is the mean velocity down to it. t [B].
    """
    one = jnp.ones_like(t)
    return Scalings(skip=one, out=t_min - t, in_=one, noise=t)


def diffusion_scalings(process: Process, sigma_data: float) -> Callable[[Array], Scalings]:
    """The scalings of a denoiser on the process: EDM's, or rectified flow's (no sigma_data)."""
    if process.name == 'rf':
        return flow_scalings
    return functools.partial(edm_scalings, sigma_data=sigma_data)


def at_boundary(process: Process, sigma_data: float) -> Callable[[Array], Scalings]:
    """The scalings of a consistency function on the process: those of a denoiser with the boundary
    condition D(x, t_min) = x."""
    if process.name == 'rf':
        return functools.partial(flow_scalings, t_min=process.t_min)
    return functools.partial(boundary_scalings, sigma_data=sigma_data, t_min=process.t_min)


def precondition(net: NetFn, scalings: Callable[[Array], Scalings]) -> DenoiseFn:
    """The denoiser D(x, t) of a network F. The combination is in float32, whatever F computes in."""

    def denoise(
        params: Params, x: Array, t: Array, label: Array | None = None, key: Key | None = None
    ) -> Array:
        skip, out, in_, noise = scalings(t)
        f = net(params, expand(in_, x) * x, noise[:, None], label, key)
        return expand(skip, x) * x + expand(out, x) * f.astype(x.dtype)

    return denoise
