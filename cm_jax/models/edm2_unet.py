"""The EDM2 U-Net: every layer keeps the magnitude of its input (arXiv 2312.02696, figure 21).

Layers use normalised weights, w = theta / |theta| for each output, so only the direction of theta
matters. `normalize_weights` resets |theta| to sqrt(fan-in); otherwise |theta| would grow in training
and the effective learning rate would fall. The paper does this inside the forward pass; here it is
the model's `project`, which training applies to the initial parameters and after each optimiser step.

`log_variance(params, cond)` is the uncertainty u(t) of equation 21. Only EDM2's training loss needs
it (`objective.uncertainty` of `edm`), so it is a function of its own, `Model.log_variance`. Its
parameters, 'logvar_...', are part of the network's; a loss that does not use them gives them a
gradient of zero. With `logvar_channels=0` the network has none, as ECT's on ImageNet.

The preconditioning is EDM's (`core.precond.edm_scalings`), with the noise input ln(t)/4.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from cm_jax.bounds import Interval, Pixels, Rate
from cm_jax.core.precision import at_precision
from cm_jax.core.tree import FIXED
from cm_jax.models import Model, unet
from cm_jax.models.layers import apply, embed_times, multi_head_attention, resample
from cm_jax.types import Array, Key, Params

WIDTHS = {
    'xs': 128,
    's': 192,
    'm': 256,
    'l': 320,
    'xl': 384,
}  # `channels` of the paper's sizes, table 6
EPSILON = 1e-4  # added to a norm before dividing by it
CLIP = 256.0  # the output of a block is clipped to [-CLIP, CLIP]
BALANCE = 0.3  # the weight of the residual branch, and of attention, in a block's sums


def unit_magnitude(x: Array, axis: int | tuple[int, ...]) -> Array:
    """Returns x / (EPSILON + root mean square of x over `axis`); the norm is computed in float32."""
    square = jnp.mean(x.astype(jnp.float32) ** 2, axis, keepdims=True)
    norm = jnp.sqrt(square + 1e-30)  # 1e-30 makes the gradient at x = 0 zero
    return x / (EPSILON + norm).astype(x.dtype)


def unit_weights(kernel: Array) -> Array:
    """Returns the kernel scaled so that each output has a mean square of 1 over all its inputs.

    The outputs are the last axis.
    """
    return unit_magnitude(kernel, tuple(range(kernel.ndim - 1)))


def normalize_weights(params: Params) -> Params:
    """Returns the parameters with |theta| = sqrt(fan-in) for each output of each kernel (equation 66).

    This is the paper's forced weight normalisation, applied after each optimiser step. Gains and
    constants keep their values. It changes the network's output by at most EPSILON, relatively.
    """

    def normalized(path: tuple, leaf: Array) -> Array:
        return unit_weights(leaf) if path[-1].key == 'kernel' else leaf

    return jax.tree_util.tree_map_with_path(normalized, params)


def mp_silu(x: Array) -> Array:
    """Returns silu(x) / 0.596, which has magnitude 1 for x ~ N(0, 1) (equation 81)."""
    return nn.silu(x) / 0.596


def mp_sum(a: Array, b: Array, share: float) -> Array:
    """Returns ((1 - s) a + s b) / sqrt((1 - s)^2 + s^2), with s = `share` (equation 88)."""
    return (a + share * (b - a)) / math.hypot(1 - share, share)


def mp_concat(a: Array, b: Array, share: float) -> Array:
    """Returns [wa a, wb b], concatenated along the channels (equation 103).

    The weights make the magnitudes of the two parts proportional to 1 - share and share. If both
    parts have magnitude 1, so has the whole.
    """
    na, nb = a.shape[-1], b.shape[-1]
    total = math.sqrt(na + nb) / math.hypot(1 - share, share)
    wa, wb = total / math.sqrt(na) * (1 - share), total / math.sqrt(nb) * share
    return jnp.concatenate([wa * a, wb * b], axis=-1)


class Fourier(nn.Module):
    """EDM2's embedding of a noise input (equation 75): c [B] -> [B, channels].

    It is sqrt(2) cos(c w_i + p_i) with w_i ~ 2 pi N(0, 1) and p_i ~ 2 pi U(0, 1), drawn once at
    initialisation. Both are constants, like the frequencies of `layers.FourierEmbedding`.
    """

    channels: int

    @nn.compact
    def __call__(self, c: Array) -> Array:
        tau = 2 * math.pi
        w = self.param(FIXED + 'freqs', nn.initializers.normal(tau), (self.channels,))
        p = self.param(FIXED + 'phases', nn.initializers.uniform(tau), (self.channels,))
        w, p = jax.lax.stop_gradient((w, p))
        return math.sqrt(2) * jnp.cos(c[:, None] * w[None] + p[None])


class Weights(nn.Module):
    """A layer of normalised weights without bias (equation 47).

    It is a convolution with `size` x `size` filters, or a matrix product if `size` is 0. The weights
    are multiplied by `gain` / sqrt(fan-in).
    """

    features: int
    size: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, gain: Array | float = 1.0) -> Array:
        shape = (self.size, self.size) if self.size else ()
        shape = (*shape, x.shape[-1], self.features)
        kernel = self.param('kernel', nn.initializers.normal(1.0), shape)
        w = unit_weights(kernel) * (gain / math.sqrt(math.prod(shape[:-1])))
        w, x = w.astype(self.dtype), x.astype(self.dtype)
        if not self.size:
            return x @ w
        return jax.lax.conv_general_dilated(
            x, w, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
        )


class Block(nn.Module):
    """A block of figure 21: `flavor` is 'enc' (the encoder's, with a pixel norm first) or 'dec'."""

    flavor: str
    features: int
    dropout: float
    dtype: Any
    heads: int = 0  # of attention; 0 means that the block does not attend
    resample: str = ''

    @nn.compact
    def __call__(self, x: Array, emb: Array) -> Array:
        x = resample(x, self.resample)
        if self.flavor == 'enc':
            x = unit_magnitude(self._skip(x), -1)
        gain = self.param('emb_gain', nn.initializers.zeros, ())
        c = Weights(self.features, 0, jnp.float32, name='emb_linear')(emb, gain) + 1
        h = Weights(self.features, 3, self.dtype, name='conv_res0')(mp_silu(x))
        h = mp_silu(h * c[:, None, None].astype(h.dtype))
        h = nn.Dropout(self.dropout, deterministic=False)(h)
        h = Weights(self.features, 3, self.dtype, name='conv_res1')(h)
        x = mp_sum(x if self.flavor == 'enc' else self._skip(x), h, BALANCE)
        if self.heads:
            x = mp_sum(x, self._attend(x), BALANCE)
        return jnp.clip(x, -CLIP, CLIP)

    def _skip(self, x: Array) -> Array:
        if x.shape[-1] == self.features:
            return x
        return Weights(self.features, 1, self.dtype, name='conv_skip')(x)

    def _attend(self, x: Array) -> Array:
        """Applies cosine attention: the queries, keys and values of each head are normalised."""
        b, height, width, c = x.shape
        h = Weights(3 * c, 0, self.dtype, name='attn_qkv')(x.reshape(b, height * width, c))
        h = h.reshape(b, height * width, 3, self.heads, -1)
        q, k, v = jnp.moveaxis(unit_magnitude(h, -1), 2, 0).reshape(3, b, height * width, c)
        h = multi_head_attention(q, k, v, self.heads)
        return Weights(c, 0, self.dtype, name='attn_proj')(h).reshape(x.shape)


class Edm2UNet(nn.Module):
    """The network described above; `build` explains its fields, `unet.as_model` how it is called.

    It has no augmentation labels.
    """

    widths: tuple[int, ...]
    noise_channels: int
    emb_channels: int
    num_blocks: int
    attn_resolutions: tuple[int, ...]
    channels_per_head: int
    dropout: float
    dropout_resolution: int
    label_balance: float
    concat_balance: float
    dtype: Any
    remat: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Array, noise: Array, label: Array, augment: Array, train: bool) -> Array:
        height, out_channels = x.shape[1], x.shape[-1]
        emb = self._embed(noise, label)
        block_at = unet.rematerialised(Block, self.remat)

        def block(flavor: str, stage: unet.Stage, x: Array) -> Array:
            heads = stage.channels // self.channels_per_head if stage.attend else 0
            rate = self.dropout if train and stage.resolution <= self.dropout_resolution else 0.0
            layer = block_at(stage.resolution)(
                flavor=flavor,
                features=stage.channels,
                dropout=rate,
                dtype=self.dtype,
                heads=heads,
                resample=stage.resample,
                name=stage.name,
            )
            return layer(x, emb)

        sizes = (height, self.widths, self.num_blocks, self.attn_resolutions)
        x = jnp.concatenate(
            [x, jnp.ones_like(x[..., :1])], axis=-1
        )  # the channel of ones replaces biases
        x = Weights(self.widths[0], 3, self.dtype, name=f'enc_{height}_conv')(x)
        skips = [x]
        for stage in unet.encoder(*sizes):
            x = block('enc', stage, x)
            skips.append(x)
        for stage in unet.decoder(*sizes):
            x = mp_concat(x, skips.pop(), self.concat_balance) if stage.joins else x
            x = block('dec', stage, x)
        gain = self.param('out_gain', nn.initializers.zeros, ())
        return Weights(out_channels, 3, jnp.float32, name='out_conv')(x, gain)

    def _embed(self, noise: Array, label: Array) -> Array:
        """Embeds the times and the class: returns [B, emb_channels], float32."""
        emb = embed_times(Fourier(self.noise_channels, name='emb_fourier'), noise)
        emb = Weights(self.emb_channels, 0, jnp.float32, name='emb_noise')(emb)
        if label.shape[1]:
            label = label * math.sqrt(label.shape[1])
            mapped = Weights(self.emb_channels, 0, jnp.float32, name='emb_label')(label)
            emb = mp_sum(emb, mapped, self.label_balance)
        return mp_silu(emb)


def add_time(params: Params, template: Params) -> Params:
    """Returns `unet.add_time` of the parameters, with theta of the embeddings' layer times sqrt(2).

    The norm of theta that its normalisation expects grows with the number of inputs, which is doubled.
    """
    wide = unet.add_time(params, template)
    return wide | {'emb_noise': jax.tree.map(lambda leaf: leaf * math.sqrt(2), wide['emb_noise'])}


class LogVariance(nn.Module):
    """The network of `log_variance`: noise input [B] -> u [B]."""

    channels: int

    @nn.compact
    def __call__(self, noise: Array) -> Array:
        features = Fourier(self.channels, name='logvar_fourier')(noise)
        return Weights(1, 0, jnp.float32, name='logvar_linear')(features)[:, 0]


def log_variance(params: Params, cond: Array) -> Array:
    """Returns u(t) [B], the log variance of the network's error at a noise level.

    `cond` is [B, 1], as `net` takes it. The paper's loss of a denoiser D (equation 21) is
    lambda(t) / exp(u(t)) |D - x0|^2 + u(t).
    """
    chex.assert_shape(cond, (None, 1))
    parts = {name: params[name] for name in ('logvar_fourier', 'logvar_linear')}
    channels = parts['logvar_fourier'][FIXED + 'freqs'].shape[0]
    return apply(LogVariance(channels), parts, cond[:, 0])


def build(
    image_shape: tuple[int, int, int],
    num_classes: int,
    channels: unet.Channels = WIDTHS['s'],
    channel_mult: Sequence[unet.Multiplier] = (1, 2, 3, 4),
    num_blocks: unet.Blocks = 3,
    attn_resolutions: Sequence[Pixels] = (16, 8),
    dropout: Rate = 0.0,
    dropout_resolution: Pixels | None = None,
    dtype: str = 'float32',
    precision: str = 'default',
    channels_per_head: unet.HeadChannels = 64,
    channel_mult_noise: unet.Multiplier | None = None,
    channel_mult_emb: unet.Multiplier | None = None,
    label_balance: Rate = 0.5,
    concat_balance: Rate = 0.5,
    logvar_channels: Annotated[int, Interval('[0, 8192]')] = 128,
    remat: Sequence[Pixels] = (),
    times: unet.Times = 1,
) -> Model:
    """Returns an EDM2 network; the defaults are its size S for ImageNet-64.

    WIDTHS holds the `channels` of the paper's other sizes.

    Args:
      image_shape: (H, W, C); H and W must be divisible by 2^(resolutions - 1).
      num_classes: 0 for an unconditional network.
      channels: width of a block before its multiplier, divisible by 4.
      channel_mult: one multiplier, at least 1, for each resolution, finest first.
      num_blocks: residual blocks at each resolution of the encoder, at least 1; the decoder has one
        more.
      attn_resolutions: image heights at which blocks attend (the middle block always does).
      dropout: probability of dropout, in [0, 1).
      dropout_resolution: the largest image height at which blocks use dropout (ECT on ImageNet: 16);
        None means all heights.
      dtype: the dtype of the computation, one of unet.DTYPES; parameters, embeddings and the output
        stay float32.
      precision: that of all convolutions and matrix products, one of core.precision.PRECISIONS.
      channels_per_head: an attending block has channels // channels_per_head heads; where that is 0
        it does not attend, as in EDM2.
      channel_mult_noise: width of the embedding of the noise input, as a multiple of `channels`; None
        takes the width of the finest resolution.
      channel_mult_emb: width of the embedding that the blocks are given, as a multiple of `channels`;
        None takes the width of the widest resolution.
      label_balance: weight of the class in the embedding, in [0, 1); the noise input has the rest.
      concat_balance: weight of the encoder output where the decoder takes it in, in [0, 1); the
        decoder's features have the rest.
      logvar_channels: width of the embedding in `log_variance`; 0 for a network without it.
      remat: image heights whose blocks are computed a second time in the backward pass, to save memory.
      times: the number of times in `cond`, 1 or 2, as `song_unet.build` explains. `log_variance` is of
        one time.

    Raises UserError if sizes contradict each other, or a name is unknown.
    """
    unet.check_sizes(image_shape, channels, channel_mult, remat)
    widths = tuple(channels * mult for mult in channel_mult)
    unet.check_heads(image_shape[0], widths, attn_resolutions, channels_per_head)
    module = Edm2UNet(
        widths=widths,
        noise_channels=channels * channel_mult_noise if channel_mult_noise else widths[0],
        emb_channels=channels * channel_mult_emb if channel_mult_emb else max(widths),
        num_blocks=num_blocks,
        attn_resolutions=tuple(attn_resolutions),
        channels_per_head=channels_per_head,
        dropout=dropout,
        dropout_resolution=image_shape[0] if dropout_resolution is None else dropout_resolution,
        label_balance=label_balance,
        concat_balance=concat_balance,
        dtype=unet.compute_dtype(dtype),
        remat=tuple(remat),
    )
    model = unet.as_model(module, image_shape, num_classes, precision=precision, times=times)
    model = model._replace(project=normalize_weights)
    if not logvar_channels:
        return model

    def init(key: Key) -> Params:
        head = LogVariance(logvar_channels).init(key, jnp.zeros(1))['params']
        return model.init(key) | head

    return model._replace(init=init, log_variance=at_precision(log_variance, precision))
