"""The types that all of cm_jax shares: arrays, networks, denoisers, extractors and distances."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax

Array = jax.Array
Key = jax.Array  # a typed key, from jax.random.key
Params = Any  # nested dict of arrays
Batch = Mapping[str, Array]  # 'image' [B,H,W,C] float32 in [-1,1], 'label' [B] int32
Metrics = Mapping[str, Array]  # name -> [B]
LogVarianceFn = Callable[[Params, Array], Array]  # (params, cond [B,1]) -> u [B], see models.Model


class NetFn(Protocol):
    """A network without preconditioning: `F = net(params, x, cond, label, key)`.

    x [B,H,W,C] is the network's input. cond [B, n_cond] holds one number for a noise level, or two
    for methods with two times, and then the augmentation labels if there are any. label [B] int32 is
    the class, or None. Without a key there is no dropout; the same key gives the same dropout mask.
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
    """A denoiser: `x0_hat = denoise(params, x, t, label, key)`, x0_hat [B,H,W,C].

    x [B,H,W,C] are noisy images and t [B] their noise levels; label and key are those of NetFn.
    """

    def __call__(
        self, params: Params, x: Array, t: Array, label: Array | None = None, key: Key | None = None
    ) -> Array: ...


class JumpFn(Protocol):
    """A flow map: `x_r = jump(params, x, t, r, label, key)`, x_r [B,H,W,C].

    It takes images x [B,H,W,C] at the noise levels t [B] along the probability-flow ODE to the levels
    r [B], 0 <= r <= t. Its jump to 0 is a denoiser; label and key are those of NetFn.
    """

    def __call__(
        self,
        params: Params,
        x: Array,
        t: Array,
        r: Array,
        label: Array | None = None,
        key: Key | None = None,
    ) -> Array: ...


class Extractor(NamedTuple):
    """A network that turns images into features, in which Fréchet distances are measured.

    `apply(params, x)` takes x [B,H,W,C] float32 in [-1, 1] and returns features [B, dim] float32.
    `logits(params, features)` returns the logits [B, classes] of the classifier whose features they
    are; it is None if there is no classifier. The name and checksum are stored beside every score.

    A jitted program should call `apply` and take `params` as an argument: the short form
    `features(x)` would compile the weights into the program as constants.
    """

    name: str  # for example 'lenet_digits'
    score: str  # the name of a Fréchet distance between these features, for example 'fd_lenet'
    dim: int
    apply: Callable[[Params, Array], Array]
    params: Params
    logits: Callable[[Params, Array], Array] | None
    checksum: str  # sha256 of the weights
    resize: str = 'none'  # how `apply` resizes images for the network; protocols state it

    def features(self, x: Array) -> Array:
        """Returns `apply(params, x)`."""
        return self.apply(self.params, x)


class Distance(NamedTuple):
    """A distance between images that is measured by a network: `distance(a, b)`, [B].

    a and b are images [B,H,W,C]. A jitted program should call `apply(params, a, b)` and take
    `params` as an argument: the short form would compile the weights into the program as constants.
    """

    name: str  # for example 'lpips_vgg'
    apply: Callable[[Params, Array, Array], Array]
    params: Params
    checksums: Mapping[str, str]  # 'features' and 'heads' -> the sha256 of the file with them

    def __call__(self, a: Array, b: Array) -> Array:
        return self.apply(self.params, a, b)
