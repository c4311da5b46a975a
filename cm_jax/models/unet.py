"""What the papers' U-Nets share: the order of blocks, the checks of settings, and the interface.

The encoder has, at each resolution, a downsampling block (at the first one: a convolution) and then
`num_blocks` blocks. The decoder starts with two blocks at the coarsest resolution and goes back up:
at each resolution an upsampling block (not at the coarsest) and then `num_blocks + 1` blocks, each of
which also takes one encoder output.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from cm_jax.bounds import Interval
from cm_jax.core.precision import PRECISIONS, at_precision
from cm_jax.core.process import expand
from cm_jax.errors import UserError, check_name
from cm_jax.models import Model, check_resolutions, heights
from cm_jax.models.layers import apply
from cm_jax.types import Array, Key, Params

DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16, 'float16': jnp.float16}
Channels = Annotated[int, Interval('[4, 8192]')]
Multiplier = Annotated[int, Interval('[1, 64]')]  # of `channels`
Blocks = Annotated[int, Interval('[1, 100]')]  # at a resolution
HeadChannels = Annotated[int, Interval('[1, 8192]')]
AugmentDim = Annotated[int, Interval('[0, 1024]')]
Times = Annotated[int, Interval('[1, 2]')]
LABELS = 0x1ABE1  # folded into the dropout key to draw which labels are dropped


class Stage(NamedTuple):
    """One block: its name, and the height (`resolution`) and channels of its output."""

    name: str
    resolution: int
    channels: int
    resample: str = ''  # '', 'down' or 'up'
    attend: bool = False
    joins: bool = False  # also takes the latest encoder output that no block has taken yet


def encoder(
    height: int, widths: Sequence[int], num_blocks: int, attn_resolutions: Sequence[int]
) -> list[Stage]:
    """Returns the encoder's blocks, which follow the first convolution, in the order they run.

    `height` is the image height; `widths` are the channels at each resolution, finest first; blocks
    at the heights in `attn_resolutions` attend.
    """
    stages = []
    for level, width in enumerate(widths):
        res = height >> level
        if level:
            stages.append(
                Stage(
                    name=f'enc_{res}_down',
                    resolution=res,
                    channels=widths[level - 1],
                    resample='down',
                )
            )
        for i in range(num_blocks):
            stages.append(
                Stage(
                    name=f'enc_{res}_block{i}',
                    resolution=res,
                    channels=width,
                    attend=res in attn_resolutions,
                )
            )
    return stages


def decoder(
    height: int,
    widths: Sequence[int],
    num_blocks: int,
    attn_resolutions: Sequence[int],
    last_attends: bool = False,
) -> list[Stage]:
    """Returns the decoder's blocks in the order they run; the arguments are those of `encoder`.

    The first block always attends. At the heights in `attn_resolutions` all `num_blocks + 1` blocks
    attend, or only the last of them if `last_attends`.
    """
    stages = []
    for level, width in reversed(list(enumerate(widths))):
        res = height >> level
        if level == len(widths) - 1:
            stages.append(Stage(name=f'dec_{res}_in0', resolution=res, channels=width, attend=True))
            stages.append(Stage(name=f'dec_{res}_in1', resolution=res, channels=width))
        else:
            stages.append(
                Stage(
                    name=f'dec_{res}_up',
                    resolution=res,
                    channels=widths[level + 1],
                    resample='up',
                )
            )
        for i in range(num_blocks + 1):
            attend = res in attn_resolutions and (i == num_blocks or not last_attends)
            stages.append(
                Stage(
                    name=f'dec_{res}_block{i}',
                    resolution=res,
                    channels=width,
                    attend=attend,
                    joins=True,
                )
            )
    return stages


def rematerialised(block: type[nn.Module], remat: Sequence[int]) -> Callable[[int], type]:
    """Returns a function from a resolution to the class of its blocks.

    At the resolutions in `remat` it is `block` with rematerialisation: it keeps only its input for
    the backward pass, which computes the block a second time. Elsewhere it is `block` itself.
    """
    recomputed = nn.remat(block)
    return lambda resolution: recomputed if resolution in remat else block


def skip_weights(t: Array, skip_scaling: float | None) -> Array | None:
    """Returns the weights phi(t) [B] that `join` takes: phi(t) = phi + t (1 - 2 phi).

    They are CUD's (arXiv 2305.10769). phi is `skip_scaling`, and t [B] is in [0, 1]. If
    `skip_scaling` is None, so is the result, and `join` scales nothing.
    """
    return None if skip_scaling is None else skip_scaling + t * (1 - 2 * skip_scaling)


def join(x: Array, skip: Array, phi: Array | None) -> Array:
    """Concatenates decoder features x and an encoder output along the channels: [..., C1 + C2].

    Unless phi [B] is None, x is scaled by 2 phi and the encoder output `skip` by 2 (1 - phi).
    """
    if phi is not None:
        phi = expand(phi, x).astype(x.dtype)
        x, skip = 2 * phi * x, 2 * (1 - phi) * skip
    return jnp.concatenate([x, skip], axis=-1)


def check_sizes(
    image_shape: tuple[int, int, int],
    channels: int,
    channel_mult: Sequence[int],
    remat: Sequence[int],
) -> None:
    """Raises UserError if the sizes of a network contradict each other.

    The image must be divisible by 2 once for each resolution after the first; `remat` may only name
    heights that the network has.
    """
    if not channel_mult:
        raise UserError('model.channel_mult needs one number for each resolution, got ()')
    factor = 2 ** (len(channel_mult) - 1)
    if image_shape[0] % factor or image_shape[1] % factor:
        raise UserError(
            f'images of {image_shape[0]}x{image_shape[1]} cannot be halved {len(channel_mult) - 1} '
            f'times, as model.channel_mult {tuple(channel_mult)} asks'
        )
    if channels % 4:
        raise UserError(f'model.channels must be a multiple of 4, got {channels}')
    check_resolutions('model.remat', remat, heights(image_shape, channel_mult))


def check_heads(
    height: int, widths: Sequence[int], attn_resolutions: Sequence[int], per_head: int
) -> None:
    """Raises UserError if some attending block cannot split its channels evenly into heads.

    A block of `channels` has channels // per_head heads.
    """
    attending = {w for i, w in enumerate(widths) if height >> i in attn_resolutions} | {widths[-1]}
    for width in sorted(attending):
        heads = width // per_head
        if heads and width % heads:
            raise UserError(
                f'{width} channels cannot be split into {heads} heads evenly; model.channels_per_head '
                f'is {per_head}'
            )


def compute_dtype(name: str) -> DTypeLike:
    """Returns the dtype of that name. Raises UserError if it is not in DTYPES."""
    check_name('model.dtype', name, DTYPES)
    return DTYPES[name]


def drop_labels(label: Array, rate: float, key: Key | None) -> Array:
    """Returns the labels [B], each replaced by -1 ("no class") with probability `rate`.

    This is how classifier-free guidance trains (arXiv 2207.12598). Without a key, none is replaced.
    """
    if key is None or not rate:
        return label
    dropped = jax.random.bernoulli(jax.random.fold_in(key, LABELS), rate, label.shape)
    return jnp.where(dropped, -1, label)


def add_time(params: Params, template: Params) -> Params:
    """Returns the parameters of a network of one time as those of the same network of two times.

    `template` has the shapes of the latter. What the second time and its embedding are multiplied by
    is zero, so that the network is the same function of its first time.
    """

    def padded(leaf: Any, like: Any) -> Any:
        widths = [(0, to - size) for to, size in zip(like.shape, leaf.shape)]
        return np.pad(leaf, widths) if like.shape != leaf.shape else leaf

    return jax.tree.map(padded, params, template)


def as_model(
    module: nn.Module,
    image_shape: tuple[int, int, int],
    num_classes: int,
    augment_dim: int = 0,
    label_dropout: float = 0.0,
    heads: int = 1,
    precision: str = 'default',
    times: int = 1,
) -> Model:
    """Returns a flax U-Net as a Model whose products are computed at `precision`.

    The module is called as `module(x, noise, label, augment, train)` with noise [B, times], one-hot
    label [B, num_classes] and augment [B, augment_dim]. No label, or -1, becomes a row of zeros.

    The model's `cond` is [B, times + augment_dim]: the noise input, or two times, then the
    augmentation labels, which say what was done to the image (EDM, appendix F.2). It may also be
    [B, times], without labels, which means that nothing was done and the labels are zeros: samplers
    and teachers use this form and need not know of augmentation. The model raises UserError on `cond`
    of any other shape.

    Raises UserError on an unknown precision.
    """
    check_name('model.precision', precision, PRECISIONS)

    def init(key: Key) -> Params:
        x = jnp.zeros((1, *image_shape))
        label, augment = jnp.zeros((1, num_classes)), jnp.zeros((1, augment_dim))
        return module.init(key, x, jnp.zeros((1, times)), label, augment, train=False)['params']

    def net(
        params: Params, x: Array, cond: Array, label: Array | None = None, key: Key | None = None
    ) -> Array:
        batch = x.shape[0]
        alone, with_labels = (batch, times), (batch, times + augment_dim)
        if cond.shape not in (alone, with_labels):
            more = f' or {with_labels} with augmentation labels' if augment_dim else ''
            raise UserError(f'the network takes cond of shape {alone}{more}, got {cond.shape}')
        label = jnp.full(batch, -1) if label is None else drop_labels(label, label_dropout, key)
        augment = cond[:, times:] if cond.shape != alone else jnp.zeros((batch, augment_dim))
        return apply(
            module,
            params,
            x,
            cond[:, :times],
            jax.nn.one_hot(label, num_classes),
            augment,
            train=key is not None,
            rngs={} if key is None else {'dropout': key},
        )

    return Model(
        init=init,
        net=at_precision(net, precision),
        augment_dim=augment_dim,
        heads=heads,
        times=times,
    )
