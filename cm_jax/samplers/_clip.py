"""The word `clip` behind a sampler's arguments, as in `heun@40,clip`: every x0 is clipped to [-1, 1].

The code of Consistency Models clips in all its samplers, those of its diffusion teachers among them
(karras_sample has `clip_denoised`, on by default).
"""

from collections.abc import Callable

import jax.numpy as jnp

from cm_jax.types import Array

CLIP = 'clip'


def without_clip(arguments: str) -> str:
    """Returns the arguments that stand before the word."""
    return arguments.removesuffix(f',{CLIP}')


def options(arguments: str) -> tuple[str, ...]:
    """Returns the choices in the arguments beside the levels: ('clip',) or ()."""
    return (CLIP,) if arguments.endswith(f',{CLIP}') else ()


def clipped(
    denoise: Callable[[Array, Array], Array], chosen: tuple[str, ...]
) -> Callable[[Array, Array], Array]:
    """Returns the denoiser, whose x0 is clipped if that is `chosen`; `chosen` is from `options`."""
    if CLIP not in chosen:
        return denoise
    return lambda x, t: jnp.clip(denoise(x, t), -1, 1)
