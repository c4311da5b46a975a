"""What the papers' U-Nets share: the order of their blocks, their settings' checks, their interface.

Encoder: at each resolution a downsampling block (or the first convolution) and `num_blocks` blocks;
decoder: the mirror image with two blocks in the middle and one more block a resolution, each of them
fed one encoder output.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from cm_jax.core.process import expand
from cm_jax.errors import UserError, check_name
from cm_jax.models import Model
from cm_jax.types import Array, Key, Params

DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}
LABELS = 0x1ABE1  # folded into the dropout key for the choice of the labels that are dropped


class Stage(NamedTuple):
    """One block: `resolution` is the image height and `channels` the width that it puts out."""

    name: str
    resolution: int
    channels: int
    resample: str = ''  # '', 'down' or 'up'
    attend: bool = False
    joins: bool = False  # takes the newest encoder output that is left beside its input


def encoder(
    height: int, widths: Sequence[int], num_blocks: int, attn_resolutions: Sequence[int]
) -> list[Stage]:
    """The blocks after the first convolution; `widths` are the channels, finest resolution first."""
    stages = []
    for level, width in enumerate(widths):
        res = height >> level
        if level:
            stages.append(Stage(f'enc_{res}_down', res, widths[level - 1], 'down'))
        for i in range(num_blocks):
            stages.append(Stage(f'enc_{res}_block{i}', res, width, attend=res in attn_resolutions))
    return stages


def decoder(
    height: int,
    widths: Sequence[int],
    num_blocks: int,
    attn_resolutions: Sequence[int],
    last_attends: bool = False,
) -> list[Stage]:
    """As `encoder`; the first block attends always, `last_attends` of a resolution only the last."""
    stages = []
    for level, width in reversed(list(enumerate(widths))):
        res = height >> level
        if level == len(widths) - 1:
            stages.append(Stage(f'dec_{res}_in0', res, width, attend=True))
            stages.append(Stage(f'dec_{res}_in1', res, width))
        else:
            stages.append(Stage(f'dec_{res}_up', res, widths[level + 1], 'up'))
        for i in range(num_blocks + 1):
            attend = res in attn_resolutions and (i == num_blocks or not last_attends)
            stages.append(Stage(f'dec_{res}_block{i}', res, width, attend=attend, joins=True))
    return stages


def rematerialised(block: type[nn.Module], remat: Sequence[int]) -> Callable[[int], type]:
    """Resolution -> the block's class: in `remat`, one that keeps its input alone for the gradient
    and computes the rest a second time."""
    again = nn.remat(block)
    return lambda resolution: again if resolution in remat else block


def skip_weights(t: Array, skip_scaling: float | None) -> Array | None:
    """phi(t) = phi + t (1 - 2 phi) of `join`: CUD's (arXiv 2305.10769), t [B] in [0, 1] -> [B]."""
    return None if skip_scaling is None else skip_scaling + t * (1 - 2 * skip_scaling)


def join(x: Array, skip: Array, phi: Array | None) -> Array:
    """Decoder features beside an encoder output, [..., C1 + C2], scaled by 2 phi and 2 (1 - phi)."""
    if phi is not None:
        phi = expand(phi, x).astype(x.dtype)
        x, skip = 2 * phi * x, 2 * (1 - phi) * skip
    return jnp.concatenate([x, skip], axis=-1)


def check_skip_scaling(skip_scaling: float | None) -> None:
    """Raises UserError unless it is None or in [0, 1]."""
    if skip_scaling is not None and not 0 <= skip_scaling <= 1:
        raise UserError(f'model.skip_scaling must be in [0, 1] or None, got {skip_scaling}')


def check_sizes(
    image_shape: tuple[int, int, int],
    channels: int,
    channel_mult: Sequence[int],
    num_blocks: int,
    remat: Sequence[int],
) -> None:
    """Raises UserError on sizes that do not fit each other."""
    if not channel_mult or min(channel_mult) < 1 or num_blocks < 1:
        raise UserError(
            'model.channel_mult needs one number >= 1 for each resolution and model.num_blocks must '
            f'be >= 1, got {tuple(channel_mult)} and {num_blocks}'
        )
    factor = 2 ** (len(channel_mult) - 1)
    if image_shape[0] % factor or image_shape[1] % factor:
        raise UserError(
            f'images of {image_shape[0]}x{image_shape[1]} cannot be halved {len(channel_mult) - 1} '
            f'times, as model.channel_mult {tuple(channel_mult)} asks'
        )
    if channels <= 0 or channels % 4:
        raise UserError(f'model.channels must be a positive multiple of 4, got {channels}')
    legal = [image_shape[0] >> level for level in range(len(channel_mult))]
    for resolution in remat:
        if resolution not in legal:
            raise UserError(
                f'model.remat names resolution {resolution}; this network has '
                f'{", ".join(map(str, legal))}'
            )


def check_heads(
    height: int, widths: Sequence[int], attn_resolutions: Sequence[int], per_head: int
) -> None:
    """Raises UserError where channels // per_head heads do not divide the channels evenly."""
    attending = {w for i, w in enumerate(widths) if height >> i in attn_resolutions} | {widths[-1]}
    for width in sorted(attending):
        heads = width // per_head
        if heads and width % heads:
            raise UserError(
                f'{width} channels cannot be split into {heads} heads evenly; model.channels_per_head '
                f'is {per_head}'
            )


def check_rates(**rates: float) -> None:
    """Raises UserError unless each is in [0, 1)."""
    for name, rate in rates.items():
        if not 0 <= rate < 1:
            raise UserError(f'model.{name} must be in [0, 1), got {rate}')


def check_least(least: int, **numbers: int) -> None:
    """Raises UserError unless each is at least `least`."""
    for name, number in numbers.items():
        if number < least:
            raise UserError(f'model.{name} must be >= {least}, got {number}')


def compute_dtype(name: str) -> jnp.dtype:
    """The dtype of the computation, by name. Raises UserError on one that is not in DTYPES."""
    check_name('model.dtype', name, DTYPES)
    return DTYPES[name]


def drop_labels(label: Array, rate: float, key: Key | None) -> Array:
    """Label [B] -> the same with -1, "no class", in place of each with probability `rate`.

    Classifier-free guidance's training (arXiv 2207.12598); no key means none is dropped.
    """
    if key is None or not rate:
        return label
    dropped = jax.random.bernoulli(jax.random.fold_in(key, LABELS), rate, label.shape)
    return jnp.where(dropped, -1, label)


def as_model(
    module: nn.Module,
    image_shape: tuple[int, int, int],
    num_classes: int,
    augment_dim: int = 0,
    label_dropout: float = 0.0,
    heads: int = 1,
) -> Model:
    """`module(x, noise [B], label [B, num_classes], augment [B, augment_dim], train)` as a Model.

    The label is one-hot; none, or one outside the classes (-1), is the zero vector. `cond` is
    [B, 1], the noise level, or [B, 1 + augment_dim], the level and the augmentation labels: what was
    done to the image (EDM, appendix F.2). [B, 1] says that nothing was, as zeros do: so samplers
    and teachers, which give the level alone, need not know of augmentation.
    """

    def init(key: Key) -> Params:
        x = jnp.zeros((1, *image_shape))
        label, augment = jnp.zeros((1, num_classes)), jnp.zeros((1, augment_dim))
        return module.init(key, x, jnp.zeros(1), label, augment, train=False)['params']

    def net(
        params: Params, x: Array, cond: Array, label: Array | None = None, key: Key | None = None
    ) -> Array:
        batch = x.shape[0]
        if cond.shape not in ((batch, 1), (batch, 1 + augment_dim)):
            more = f' or {(batch, 1 + augment_dim)} with augmentation labels' if augment_dim else ''
            raise UserError(f'the network takes cond of shape {(batch, 1)}{more}, got {cond.shape}')
        label = jnp.full(batch, -1) if label is None else drop_labels(label, label_dropout, key)
        augment = cond[:, 1:] if cond.shape[1] > 1 else jnp.zeros((batch, augment_dim))
        return module.apply(
            {'params': params},
            x,
            cond[:, 0],
            jax.nn.one_hot(label, num_classes),
            augment,
            train=key is not None,
            rngs={} if key is None else {'dropout': key},
        )

    return Model(init, net, augment_dim, heads=heads)
