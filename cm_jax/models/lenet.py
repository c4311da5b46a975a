"""LeNet-5, a classifier of 61,706 parameters: the packaged feature extractors for small images.

    x [B,H,W,C] -> mean over C -> bilinear to 28x28 -> conv 5x5 SAME, 6 -> relu -> max pool 2
      -> conv 5x5 VALID, 16 -> relu -> max pool 2 -> dense 120 -> relu
      -> dense 84 -> relu = features -> dense 10 = logits

after LeCun et al. 1998, "Gradient-Based Learning Applied to Document Recognition", figure 2, with
ReLU and max pooling. The resize is `jax.image.resize(..., 'linear', antialias=True)`: half-pixel
centres, and a wider triangle when it shrinks. Products are float32 on every device (no TF32).

Packaged weights, made by launch/train_lenet.py, with their accuracy on a test split that was used
for nothing else (the json beside each npz holds the whole record):

    lenet_digits           96.6 % of 297 (trained on 1,500)
    lenet_fashion_mnist    90.4 % of 10,000 (trained on 60,000)

What a Fréchet distance in these features looks like, train split against test split and against
uniform noise: digits 37.8 (few images, other writers) and 544, Fashion-MNIST 0.11 and 229. The two
spaces have different units: never compare across them.
"""

import hashlib
import json
import pathlib

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from cm_jax.errors import UserError, check_name
from cm_jax.types import Array, Extractor, Key, Params

SIDE = 28
RESIZE = 'mean over channels, linear with antialiasing to 28x28'  # as protocols store it
DIM = 84
WEIGHTS = pathlib.Path(__file__).parent / 'lenet_weights'


class BandedConv(nn.Module):
    """A 5x5 SAME convolution [B,H,W,1] -> [B,H,W,features] as one product with a banded matrix.

    Row y of the result is the rows y-2..y+2 side by side, [5 (W+4)], times [5 (W+4), W features].
    XLA's convolution of a single channel is slow on CPUs: with it the whole network is 2.4 times
    slower there.
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
    """[B,H,W,C] in [-1,1] -> (features [B,84], logits [B,10])."""

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
    """Fresh parameters."""
    return LeNet().init(key, jnp.zeros((1, SIDE, SIDE, 1)))['params']


def logits(params: Params, x: Array) -> Array:
    """[B,H,W,C] in [-1,1] -> class logits [B,10]."""
    chex.assert_rank(x, 4)
    return LeNet().apply({'params': params}, x)[1]


def features(params: Params, x: Array) -> Array:
    """[B,H,W,C] in [-1,1] -> [B,84] >= 0, the last hidden layer after its relu."""
    chex.assert_rank(x, 4)
    return LeNet().apply({'params': params}, x)[0]


def logits_of_features(params: Params, found: Array) -> Array:
    """features [B,84] -> class logits [B,10]."""
    kernel, bias = (params['dense3'][leaf] for leaf in ('kernel', 'bias'))
    return jnp.matmul(found, kernel, precision='highest') + bias[None]


def checksum(params: Params) -> str:
    """sha256 over the float32 bytes of the parameters, in the order of their sorted names."""
    flat = traverse_util.flatten_dict(params, sep='/')
    digest = hashlib.sha256()
    for name in sorted(flat):
        digest.update(np.ascontiguousarray(flat[name], '<f4').tobytes())
    return digest.hexdigest()


def names() -> list[str]:
    """The packaged weights."""
    return sorted(path.stem for path in WEIGHTS.glob('*.npz'))


def save(name: str, params: Params, record: dict) -> None:
    """Packages weights: `<name>.npz`, and `<name>.json` with `record` and the checksum."""
    flat = traverse_util.flatten_dict(params, sep='/')
    np.savez(WEIGHTS / f'{name}.npz', **{k: np.asarray(v, '<f4') for k, v in sorted(flat.items())})
    text = json.dumps({**record, 'checksum': checksum(params)}, indent=2)
    (WEIGHTS / f'{name}.json').write_text(text + '\n')


def load(name: str) -> tuple[Params, dict]:
    """Packaged weights and their record.

    Raises UserError on an unknown name, or if the npz does not have the checksum in the json.
    """
    check_name('LeNet weights', name, names())
    record = json.loads((WEIGHTS / f'{name}.json').read_text())
    try:
        with np.load(WEIGHTS / f'{name}.npz', allow_pickle=False) as file:
            params = traverse_util.unflatten_dict(dict(file), sep='/')
        found = checksum(params)
    except Exception as error:  # a cut or altered zip raises one of many
        raise UserError(f'{WEIGHTS / name}.npz cannot be read: {error}') from error
    if found != record['checksum']:
        raise UserError(
            f'{WEIGHTS / name}.npz is damaged: its checksum is {found}, not {record["checksum"]}'
        )
    return params, record


def extractor(name: str) -> Extractor:
    """The packaged weights as a feature extractor. Raises UserError on an unknown name."""
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
