"""Turns image files into a TFDS data set, offline and without TensorFlow.

    python -m cm_jax.prepare --dataset=fashion_mnist
    python -m cm_jax.prepare --dataset=cifar10 --from=cifar-10-python.tar.gz
    python -m cm_jax.prepare --dataset=flowers --from=flowers.zip --size=64

The first finds the files of Debian's package dataset-fashion-mnist. The format of --from is found
from its content. Afterwards `config.dataset = dict(source='tfds', name='flowers', split='train')`
trains on it; `tfds.data_source('flowers')` reads it anywhere else.
"""

import pathlib
import shutil
import subprocess
from collections.abc import Sequence

from absl import flags

from cm_jax import cli
from cm_jax.data import card, readers
from cm_jax.data import prepare as data_prepare
from cm_jax.data.readers import idx
from cm_jax.errors import UserError

FLAGS = flags.FLAGS
flags.DEFINE_string(
    'dataset', '', 'The name to write it under; mnist, fashion_mnist, cifar10 or new.'
)
flags.DEFINE_string('from', '', f'What to read: {readers.LEGAL}.')
flags.DEFINE_string('data_dir', '', "Where TFDS keeps its data; empty means TFDS's default.")
flags.DEFINE_integer(
    'size', 0, 'Centre-crop and resize to this many pixels a side; 0 keeps the size.'
)

DEBIAN_PACKAGE = 'dataset-fashion-mnist'


def debian_folder() -> str:
    """The folder of Debian's Fashion-MNIST files, wherever its package put them, or ''."""
    if not shutil.which('dpkg'):
        return ''
    listing = subprocess.run(['dpkg', '-L', DEBIAN_PACKAGE], capture_output=True, text=True)
    files = map(pathlib.Path, listing.stdout.splitlines())
    return next((str(f.parent) for f in files if idx.FILE_NAME.fullmatch(f.name)), '')


def main(argv: Sequence[str]) -> None:
    del argv
    dataset, path = FLAGS.dataset, FLAGS['from'].value
    if not dataset:
        raise UserError('--dataset is needed: the name to write the data set under')
    if not path and dataset.startswith('fashion_mnist'):
        path = debian_folder()
        if not path:
            raise UserError(
                f'no --from, and the package {DEBIAN_PACKAGE} is not installed: '
                f'apt-get install {DEBIAN_PACKAGE}, or give --from={readers.LEGAL}'
            )
    if not path:
        raise UserError(f'--from is needed: {readers.LEGAL}')
    prepared = data_prepare.prepare(dataset, path, FLAGS.data_dir, FLAGS.size)
    print(f'{prepared.folder} {"written" if prepared.is_new else "is already prepared from this"}')
    for stored in prepared.cards.values():
        print(card.line(stored))


if __name__ == '__main__':
    cli.run(main)
