"""Makes the LeNet weights that the package contains: trains, tests once, writes npz and json.

    python launch/train_lenet.py --weights=lenet_digits --source=digits
    python launch/train_lenet.py --weights=lenet_fashion_mnist --source=tfds --name=fashion_mnist \
        --data_dir=DIR --epochs=15 --batch_size=100 --flip --shift=1 --zoom=0.05

The optimiser is Adam with a cosine decay of the learning rate. Each image is resized to 28x28 pixels
with a random shift and zoom. The test split is read once, at the end. For choosing settings there is
`--held_out=N`: it leaves the last N training examples out of training, tests on those instead of the
test split, and writes nothing.
"""

import shlex
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags

from cm_jax.data import Source, open_source, to_float
from cm_jax.models import lenet
from cm_jax.types import Params

_WEIGHTS = flags.DEFINE_string('weights', None, 'The name of the weights to write.', required=True)
_SOURCE = flags.DEFINE_string('source', 'digits', 'The data source.')
_NAME = flags.DEFINE_string('name', None, 'The setting `name` of the source, for tfds.')
_DATA_DIR = flags.DEFINE_string('data_dir', None, 'The setting `data_dir` of the source, for tfds.')
_SEED = flags.DEFINE_integer(
    'seed',
    0,
    'Seed of the initial weights, the order of the examples and the random changes of images.',
)
_EPOCHS = flags.DEFINE_integer('epochs', 100, 'The number of epochs.')
_BATCH_SIZE = flags.DEFINE_integer('batch_size', 50, 'The number of images in a batch.')
_LEARNING_RATE = flags.DEFINE_float(
    'learning_rate', 2e-3, 'The learning rate of Adam at the start.'
)
_SHIFT = flags.DEFINE_float('shift', 2.0, 'The largest shift, in pixels of the 28x28 image.')
_ZOOM = flags.DEFINE_float('zoom', 0.1, 'The largest zoom, as a fraction of the size.')
_FLIP = flags.DEFINE_bool('flip', False, 'Mirror each image left to right with probability 1/2.')
_HELD_OUT = flags.DEFINE_integer(
    'held_out',
    0,
    'Test on this many training examples, which are left out of training; for choosing settings.',
)


def read(split: str) -> tuple[np.ndarray, np.ndarray, Source]:
    """Returns all images [n,H,W,C] in [-1, 1] and labels [n] of a split, and its source."""
    settings = {'name': _NAME.value, 'data_dir': _DATA_DIR.value}
    given = {name: value for name, value in settings.items() if value is not None}
    source = open_source(_SOURCE.value, split, **given)
    images, labels = source.get(np.arange(source.count))
    return to_float(images), labels, source


def augment(key: jax.Array, x: jax.Array) -> jax.Array:
    """Returns images [B,H,W,C] as [B,28,28,C], each one shifted, zoomed and mirrored at random."""
    shift_key, zoom_key, flip_key = jax.random.split(key, 3)
    batch, height, width, channels = x.shape
    shift = jax.random.uniform(shift_key, (batch, 2), minval=-_SHIFT.value, maxval=_SHIFT.value)
    zoom = 1 + jax.random.uniform(zoom_key, (batch,), minval=-_ZOOM.value, maxval=_ZOOM.value)
    flipped = jax.random.bernoulli(flip_key, 0.5 if _FLIP.value else 0.0, (batch, 1, 1, 1))
    x = jnp.where(flipped, x[:, :, ::-1], x)

    def move(image: jax.Array, shift: jax.Array, zoom: jax.Array) -> jax.Array:
        scale = zoom * lenet.SIDE / jnp.array([height, width], jnp.float32)
        origin = lenet.SIDE / 2 * (1 - zoom) + shift
        shape = (lenet.SIDE, lenet.SIDE, channels)
        # Pixels from outside the image come in as 0, so black is made 0 for the move.
        return jax.image.scale_and_translate(image + 1, shape, (0, 1), scale, origin, 'linear') - 1

    return jax.vmap(move)(x, shift, zoom)


def train(images: np.ndarray, labels: np.ndarray) -> Params:
    """Returns the parameters after the last of --epochs epochs of training."""
    key = jax.random.key(_SEED.value)
    steps = len(images) // _BATCH_SIZE.value
    optimiser = optax.adam(optax.cosine_decay_schedule(_LEARNING_RATE.value, steps * _EPOCHS.value))
    params = lenet.init(jax.random.fold_in(key, 0))
    state = optimiser.init(params)

    def loss_of(params: Params, x: jax.Array, y: jax.Array) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(lenet.logits(params, x), y).mean()

    @jax.jit
    def step(params, state, x, y, key):
        loss, grads = jax.value_and_grad(loss_of)(params, augment(key, x), y)
        updates, state = optimiser.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    started = time.time()
    for epoch in range(_EPOCHS.value):
        order = np.random.default_rng((_SEED.value, epoch)).permutation(len(images))
        losses = []
        for i in range(steps):
            rows = order[i * _BATCH_SIZE.value : (i + 1) * _BATCH_SIZE.value]
            step_key = jax.random.fold_in(key, 1 + epoch * steps + i)
            params, state, loss = step(params, state, images[rows], labels[rows], step_key)
            losses.append(loss)
        mean = float(np.mean(jax.device_get(losses)))
        print(f'epoch {epoch + 1:3d}  loss {mean:.4f}  {time.time() - started:.0f} s', flush=True)
    return jax.device_get(params)


def accuracy(params: Params, images: np.ndarray, labels: np.ndarray) -> float:
    """Returns the fraction of images [n,H,W,C] that the network assigns to their labels [n]."""
    logits = jax.jit(lenet.logits)
    parts = [logits(params, images[i : i + 500]) for i in range(0, len(images), 500)]
    return float(np.mean(np.concatenate(parts).argmax(-1) == labels))


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f'unexpected argument {argv[1]!r}')
    images, labels, source = read('train')
    if _HELD_OUT.value:
        cut = len(images) - _HELD_OUT.value
        params = train(images[:cut], labels[:cut])
        print(f'held-out accuracy {accuracy(params, images[cut:], labels[cut:]):.4f}')
        return
    params = train(images, labels)
    test_images, test_labels, test = read('test')
    record = {
        'dataset': _NAME.value or _SOURCE.value,
        'train_split': source.split,
        'train_count': source.count,
        'test_split': test.split,
        'test_count': test.count,
        'test_accuracy': round(accuracy(params, test_images, test_labels), 5),
        'seed': _SEED.value,
        'epochs': _EPOCHS.value,
        'command': command(),
        'jax_version': jax.__version__,
    }
    lenet.save(_WEIGHTS.value, params, record)
    print(f'test accuracy {record["test_accuracy"]:.4f}; wrote {_WEIGHTS.value}')


def command() -> str:
    """Returns the command that makes these weights again, with DIR in place of the data folder."""
    arguments = [
        '--data_dir=DIR' if argument.startswith('--data_dir=') else argument
        for argument in sys.argv[1:]
    ]
    return shlex.join(['python', 'launch/train_lenet.py', *arguments])


if __name__ == '__main__':
    app.run(main)
