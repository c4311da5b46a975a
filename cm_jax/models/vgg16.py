"""Features of VGG-16, the classifier of ImageNet that LPIPS measures with: `features(params, x)`.

    x [B,H,W,C] in [-1,1] -> three channels -> 32x32 if a side is below 32 -> (x - SHIFT) / SCALE
      -> relu1_2 -> ... -> relu5_3 [B,H/16,W/16,512] -> mean over H and W = features [B,512]

The network is that of models/lpips.py (Simonyan and Zisserman, arXiv 1409.1556, configuration D),
with max pooling, and relu5_3 is the fifth of its maps. SHIFT and SCALE are those of LPIPS. A single
channel is repeated three times. Small images are resized by `jax.image.resize(..., 'linear',
antialias=True)`; larger ones are taken as they are. All is float32 on every device (no TF32).

The backbone of a classifier of photographs, used on small pictures, is a feature space of its own. A
Fréchet distance in it is no FID: its units are its own, and published numbers are not comparable.
"""

import chex
import jax.numpy as jnp

from cm_jax.models.layers import apply
from cm_jax.models.lpips import Features, scaled, to_input
from cm_jax.types import Array, Params

DIM = 512
SIDE = 32  # images with a side below it are resized to SIDE x SIDE
RESIZE = 'linear with antialiasing to 32x32 if a side is below 32'  # the text that protocols store
NETWORK = 'vgg'  # its name in models/lpips.py


def features(params: Params, x: Array) -> Array:
    """Returns the features [B,512] >= 0 of images [B,H,W,C] in [-1,1], C 1 or 3.

    `params` are those of `lpips.Features`. Raises UserError on another number of channels.
    """
    chex.assert_rank(x, 4)
    x = to_input(x, 'the extractor VGG-16', SIDE, SIDE, antialias=True)
    *_, last = apply(Features(NETWORK, pooling='max', precision='highest'), params, scaled(x))
    return jnp.mean(last, axis=(1, 2))
