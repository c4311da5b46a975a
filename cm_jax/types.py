"""The types that every file shares, and the two function signatures at the seams."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax

Array = jax.Array
Key = jax.Array  # a typed key, from jax.random.key
Params = Any  # nested dict of arrays
Batch = Mapping[str, Array]  # 'image' [B,H,W,C] float32 in [-1,1], 'label' [B] int32
Metrics = Mapping[str, Array]  # name -> [B]


class NetFn(Protocol):
    """The bare network: `F = net(params, x, cond, label, key)`.

    x [B,H,W,C]; cond [B, n_cond], 1 number for a noise level and 2 for two-time methods, then any
    augmentation labels; label [B] int32 or None; key None means no dropout, and the same key gives
    the same dropout mask.
    """

    def __call__(
        self,
        params: Params,
        x: Array,
        cond: Array,
        label: Array | None = None,
        key: Key | None = None,
    ) -> Array: ...


class DenoiseFn(Protocol):
    """The denoiser: `x0_hat = denoise(params, x, t, label, key)`; x [B,H,W,C], t [B] levels."""

    def __call__(
        self, params: Params, x: Array, t: Array, label: Array | None = None, key: Key | None = None
    ) -> Array: ...


class Extractor(NamedTuple):
    """Images to features: `apply(params, x)`, [B,H,W,C] float32 in [-1,1] -> [B, dim] float32.

    A Fréchet distance is measured with it; its name and checksum are stored beside every score. A
    jitted program takes `params` as an argument: the short form `features(x)` would write the
    weights into it as constants. `logits(params, features)` [B, dim] -> [B, classes] are those of
    the classifier that the features come from; None if there is none.
    """

    name: str  # 'lenet_digits'
    score: str  # what a Fréchet distance in this space is called: 'fd_lenet'
    dim: int
    apply: Callable[[Params, Array], Array]
    params: Params
    logits: Callable[[Params, Array], Array] | None
    checksum: str  # sha256 of the weights
    resize: str = 'none'  # what `apply` does to images before the network: for protocols

    def features(self, x: Array) -> Array:
        return self.apply(self.params, x)


class Distance(NamedTuple):
    """A distance between images with weights of its own: `distance(a, b)`, [B,H,W,C] twice -> [B].

    A jitted program takes `params` as an argument and calls `apply(params, a, b)`: the short form in
    a program would write the weights into it as constants.
    """

    name: str  # 'lpips_vgg'
    apply: Callable[[Params, Array, Array], Array]
    params: Params
    checksums: Mapping[str, str]  # 'features', 'heads' -> sha256 of the file

    def __call__(self, a: Array, b: Array) -> Array:
        return self.apply(self.params, a, b)
