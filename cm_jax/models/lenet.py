"""LeNet-5, a classifier of 61,706 parameters, and the small-image feature extractors made from it.

    x [B,H,W,C] -> mean over C -> bilinear to 28x28 -> conv 5x5 SAME, 6 -> relu -> max pool 2
      -> conv 5x5 VALID, 16 -> relu -> max pool 2 -> dense 120 -> relu
      -> dense 84 -> relu = features -> dense 10 = logits

This follows LeCun et al. 1998, "Gradient-Based Learning Applied to Document Recognition", figure 2,
with ReLU and max pooling instead of the paper's. The resize is
`jax.image.resize(..., 'linear', antialias=True)`: it has half-pixel centres, and its triangle filter
widens when it shrinks an image. Products are float32 on every device (no TF32).

The packaged weights come from launch/train_lenet.py. Their accuracy is measured on a test split that
was used for nothing else; the json beside each npz holds the whole record:

    lenet_digits           96.6 % of 297 (trained on 1,500)
    lenet_digits_2         98.3 % of 297 (the same with another seed, for second opinions)
    lenet_fashion_mnist    90.4 % of 10,000 (trained on 60,000)

For orientation, Fréchet distances in these features:

                           train to test split                       train split to uniform noise
    lenet_digits           37.8 (few images, other writers)          544
    lenet_digits_2         40.6                                      566
    lenet_fashion_mnist    0.11                                      229

The feature spaces have different units: never compare distances across them.
"""

import hashlib
import json
import pathlib
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from cm_jax.errors import UserError, check_name
from cm_jax.models.layers import apply
from cm_jax.types import Array, Extractor, Key, Params

SIDE = 28
RESIZE = 'mean over channels, linear with antialiasing to 28x28'  # the text that protocols store
DIM = 84
WEIGHTS = pathlib.Path(__file__).parent / 'lenet_weights'


class BandedConv(nn.Module):
    """A 5x5 SAME convolution [B,H,W,1] -> [B,H,W,features], computed as one matrix product.

    Row y of the result is the padded rows y-2 .. y+2 side by side, [5 (W+4)], times a banded matrix
    [5 (W+4), W features]. The reason: XLA's convolution of a single channel is slow on CPUs, where it
    makes the whole network 2.4 times slower.
    """

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param('kernel', nn.initializers.lecun_normal(), (5, 5, 1, self.features))
        bias = self.param('bias', nn.initializers.zeros, (self.features,))
        batch, height, width, _ = x.shape
        rows = jnp.pad(x[..., 0], ((0, 0), (2, 2), (2, 2)))
        strips = jnp.concatenate([rows[:, i : i + height] for i in range(5)], axis=-1)
        shifts = np.stack([np.eye(width + 4, width, -j, np.float32) for j in range(5)])
        band = jnp.einsum('jpq,ijo->ipqo', shifts, kernel[:, :, 0], precision='highest')
        out = jnp.matmul(strips, band.reshape(5 * (width + 4), -1), precision='highest')
        return out.reshape(batch, height, width, self.features) + bias[None, None, None]


class LeNet(nn.Module):
    """The network: images [B,H,W,C] in [-1,1] -> (features [B,84], logits [B,10])."""

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        x = jnp.mean(x.astype(jnp.float32), axis=-1, keepdims=True)
        x = jax.image.resize(x, (x.shape[0], SIDE, SIDE, 1), 'linear', precision='highest')
        x = nn.relu(BandedConv(6, name='conv1')(x))
        x = nn.max_pool(x, (2, 2), (2, 2))
        x = nn.relu(nn.Conv(16, (5, 5), padding='VALID', precision='highest', name='conv2')(x))
        x = nn.max_pool(x, (2, 2), (2, 2))
        x = x.reshape(x.shape[0], -1)
        x = nn.relu(nn.Dense(120, precision='highest', name='dense1')(x))
        x = nn.relu(nn.Dense(DIM, precision='highest', name='dense2')(x))
        return x, nn.Dense(10, precision='highest', name='dense3')(x)


def init(key: Key) -> Params:
    """Returns freshly drawn parameters."""
    return LeNet().init(key, jnp.zeros((1, SIDE, SIDE, 1)))['params']


def logits(params: Params, x: Array) -> Array:
    """Returns the class logits [B,10] of images [B,H,W,C] in [-1,1]."""
    chex.assert_rank(x, 4)
    return apply(LeNet(), params, x)[1]


def features(params: Params, x: Array) -> Array:
    """Returns the features [B,84] >= 0 of images [B,H,W,C] in [-1,1].

    They are the last hidden layer after its relu.
    """
    chex.assert_rank(x, 4)
    return apply(LeNet(), params, x)[0]


def logits_of_features(params: Params, features: Array) -> Array:
    """Returns the class logits [B,10] of features [B,84]."""
    kernel, bias = (params['dense3'][leaf] for leaf in ('kernel', 'bias'))
    return jnp.matmul(features, kernel, precision='highest') + bias[None]


def checksum(params: Params) -> str:
    """Returns the sha256 of the parameters' float32 bytes, in the order of their sorted names."""
    flat = traverse_util.flatten_dict(params, sep='/')
    digest = hashlib.sha256()
    for name in sorted(flat):
        digest.update(np.ascontiguousarray(flat[name], '<f4').tobytes())
    return digest.hexdigest()


def names() -> list[str]:
    """Returns the names of the packaged weights, sorted."""
    return sorted(path.stem for path in WEIGHTS.glob('*.npz'))


def save(name: str, params: Params, record: dict) -> None:
    """Writes weights into the package: `<name>.npz`, and `<name>.json` with `record` and checksum."""
    flat = traverse_util.flatten_dict(params, sep='/')
    arrays: dict[str, Any] = {path: np.asarray(leaf, '<f4') for path, leaf in sorted(flat.items())}
    np.savez(WEIGHTS / f'{name}.npz', **arrays)
    text = json.dumps({**record, 'checksum': checksum(params)}, indent=2)
    (WEIGHTS / f'{name}.json').write_text(text + '\n')


def load(name: str) -> tuple[Params, dict]:
    """Returns packaged weights and their record, the content of the json.

    Raises UserError if the name is unknown, or the npz cannot be read or does not have the checksum
    that the json states.
    """
    check_name('LeNet weights', name, names())
    record = json.loads((WEIGHTS / f'{name}.json').read_text())
    try:
        with np.load(WEIGHTS / f'{name}.npz', allow_pickle=False) as file:
            params = traverse_util.unflatten_dict(dict(file), sep='/')
        actual = checksum(params)
    except Exception as error:  # a truncated or altered zip can raise many kinds of error
        raise UserError(f'{WEIGHTS / name}.npz cannot be read: {error}') from error
    if actual != record['checksum']:
        raise UserError(
            f'{WEIGHTS / name}.npz is damaged: its checksum is {actual}, not {record["checksum"]}'
        )
    return params, record


def extractor(name: str) -> Extractor:
    """Returns the feature extractor with the packaged weights of that name.

    Raises UserError as `load` does.
    """
    params, record = load(name)
    return Extractor(
        name=name,
        score='fd_lenet',
        dim=DIM,
        apply=features,
        params=params,
        logits=logits_of_features,
        checksum=record['checksum'],
        resize=RESIZE,
    )
