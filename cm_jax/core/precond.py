"""Preconditioning: the denoiser D is a skip connection around the bare network F.

D(x, t) = skip(t) x + out(t) F(in(t) x, noise(t))
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from cm_jax.core.process import Process, expand
from cm_jax.types import Array, DenoiseFn, Key, NetFn, Params


class Scalings(NamedTuple):
    """The four factors of the formula above, [B] each.

    EDM's letters are c_skip, c_out, c_in and c_noise; `in_` is so written as `in` is a keyword.
    """

    skip: Array
    out: Array
    in_: Array
    noise: Array


def edm_scalings(t: Array, sigma_data: float) -> Scalings:
    """Returns the scalings of EDM (arXiv 2206.00364, table 1) for t [B], positive.

    skip = sd^2/(t^2+sd^2), out = t sd/sqrt(t^2+sd^2), in = 1/sqrt(t^2+sd^2), noise = ln(t)/4,
    with sd = sigma_data.
    """
    total = t**2 + sigma_data**2
    return Scalings(
        skip=sigma_data**2 / total,
        out=t * sigma_data / jnp.sqrt(total),
        in_=1 / jnp.sqrt(total),
        noise=jnp.log(t) / 4,
    )


def consistency_scalings(t: Array, sigma_data: float, t_min: float) -> Scalings:
    """Returns the scalings of Consistency Models (arXiv 2303.01469, appendix C) for t [B] >= t_min.

    skip = sd^2/((t-t_min)^2+sd^2), out = (t-t_min) sd/sqrt(t^2+sd^2), noise = 250 ln(t + 1e-44),
    with sd = sigma_data and `in` as in EDM. D(x, t_min) = x holds exactly.
    """
    total = t**2 + sigma_data**2
    return Scalings(
        skip=sigma_data**2 / ((t - t_min) ** 2 + sigma_data**2),
        out=(t - t_min) * sigma_data / jnp.sqrt(total),
        in_=1 / jnp.sqrt(total),
        noise=250 * jnp.log(t + 1e-44),
    )


def boundary_scalings(t: Array, sigma_data: float, t_min: float) -> Scalings:
    """Returns skip and out of `consistency_scalings`, with in and noise of `edm_scalings`.

    ECT samples with them (arXiv 2406.14548). A network that was trained with `edm_scalings` gets the
    same input as in training, and D(x, t_min) = x holds exactly.
    """
    edm, boundary = edm_scalings(t, sigma_data), consistency_scalings(t, sigma_data, t_min)
    return edm._replace(skip=boundary.skip, out=boundary.out)


def flow_scalings(t: Array, t_min: float = 0.0) -> Scalings:
    """Returns the scalings of rectified flow, D(x, t) = x - (t - t_min) F(x, t), for t [B].

    The noise input of the network is t itself. With t_min = 0 the network F is the velocity dx/dt
    (arXiv 2209.03003), since D = x - t v for this process. With the t_min of the process,
    D(x, t_min) = x holds exactly, and F is the mean velocity between t_min and t.
    """
    one = jnp.ones_like(t)
    return Scalings(skip=one, out=t_min - t, in_=one, noise=t)


def diffusion_scalings(process: Process, sigma_data: float) -> Callable[[Array], Scalings]:
    """Returns the scalings of a denoiser on the process: those of EDM, or of rectified flow.

    Rectified flow does not use sigma_data.
    """
    if process.name == 'rf':
        return flow_scalings
    return functools.partial(edm_scalings, sigma_data=sigma_data)


def at_boundary(process: Process, sigma_data: float) -> Callable[[Array], Scalings]:
    """Returns the scalings of a consistency function on the process.

    They are those of a denoiser on it, changed so that D(x, t_min) = x holds exactly.
    """
    if process.name == 'rf':
        return functools.partial(flow_scalings, t_min=process.t_min)
    return functools.partial(boundary_scalings, sigma_data=sigma_data, t_min=process.t_min)


def precondition(net: NetFn, scalings: Callable[[Array], Scalings]) -> DenoiseFn:
    """Returns the denoiser D(x, t) of a network F.

    F(x, t) is converted to the type of x before it is combined with x, so a network that computes in
    bfloat16 gives a denoiser in float32.
    """

    def denoise(
        params: Params, x: Array, t: Array, label: Array | None = None, key: Key | None = None
    ) -> Array:
        skip, out, in_, noise = scalings(t)
        f = net(params, expand(in_, x) * x, noise[:, None], label, key)
        return expand(skip, x) * x + expand(out, x) * f.astype(x.dtype)

    return denoise
