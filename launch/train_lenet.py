"""Makes the packaged LeNet weights: trains on the train split, tests once, writes npz and json.

    python launch/train_lenet.py --weights=lenet_digits --source=digits
    python launch/train_lenet.py --weights=lenet_fashion_mnist --source=tfds --name=fashion_mnist \
        --data_dir=DIR --epochs=15 --batch_size=100 --flip --shift=1 --zoom=0.05

Adam with a cosine decay; each image is shifted and zoomed at random, in 28x28 pixels. The test
split is read once, at the end. `--held_out=N` is for choosing settings: it trains without the last
N training examples, tests on those instead, and writes nothing.
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

_WEIGHTS = flags.DEFINE_string('weights', None, 'Name of the weights to write.', required=True)
_SOURCE = flags.DEFINE_string('source', 'digits', 'Data source.')
_NAME = flags.DEFINE_string('name', None, "The source's own `name`, for tfds.")
_DATA_DIR = flags.DEFINE_string('data_dir', None, "The source's own `data_dir`, for tfds.")
_SEED = flags.DEFINE_integer('seed', 0, 'Seed of the initial weights, the order and the shifts.')
_EPOCHS = flags.DEFINE_integer('epochs', 100, 'Epochs.')
_BATCH_SIZE = flags.DEFINE_integer('batch_size', 50, 'Batch size.')
_LEARNING_RATE = flags.DEFINE_float('learning_rate', 2e-3, 'Learning rate of Adam at the start.')
_SHIFT = flags.DEFINE_float('shift', 2.0, 'Largest shift, in pixels of 28.')
_ZOOM = flags.DEFINE_float('zoom', 0.1, 'Largest zoom, as a fraction.')
_FLIP = flags.DEFINE_bool('flip', False, 'Flip left and right with probability 1/2.')
_HELD_OUT = flags.DEFINE_integer('held_out', 0, 'Choose settings on this many training examples.')


def read(split: str) -> tuple[np.ndarray, np.ndarray, Source]:
    """All images [n,H,W,C] in [-1,1] and labels [n] of a split."""
    settings = {'name': _NAME.value, 'data_dir': _DATA_DIR.value}
    given = {name: value for name, value in settings.items() if value is not None}
    source = open_source(_SOURCE.value, split, **given)
    images, labels = source.get(np.arange(source.count))
    return to_float(images), labels, source


def augment(key: jax.Array, x: jax.Array) -> jax.Array:
    """Resizes [B,H,W,C] to 28x28, each image shifted, zoomed and perhaps flipped on its own."""
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
        # What comes in from outside is 0, so black has to be 0 here.
        return jax.image.scale_and_translate(image + 1, shape, (0, 1), scale, origin, 'linear') - 1

    return jax.vmap(move)(x, shift, zoom)


def train(images: np.ndarray, labels: np.ndarray) -> Params:
    """Trains for the epochs asked for and returns the last parameters."""
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
    """The command that makes these weights again; where the data lies is the reader's business."""
    arguments = ['--data_dir=DIR' if a.startswith('--data_dir=') else a for a in sys.argv[1:]]
    return shlex.join(['python', 'launch/train_lenet.py', *arguments])


if __name__ == '__main__':
    app.run(main)
