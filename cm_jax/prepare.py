"""Turns image files into a TFDS data set, offline and without TensorFlow.

    python -m cm_jax.prepare --dataset=fashion_mnist
    python -m cm_jax.prepare --dataset=cifar10 --from=cifar-10-python.tar.gz
    python -m cm_jax.prepare --dataset=flowers --from=flowers.zip --size=64
    python -m cm_jax.prepare --dataset=imagenet64 --from=ILSVRC/Data/CLS-LOC/train --size=64 --crop=adm

The first command uses the files of Debian's package dataset-fashion-mnist. The format of --from is
recognised by its content. Afterwards a config trains on the data set with
`config.dataset = dict(source='tfds', name='flowers', split='train')`, and any other program reads it
with `tfds.data_source('flowers')`. configs/own_edm.py takes any by its name:

    python -m cm_jax.train --config=configs/own_edm.py --workdir=runs/own/edm \\
        --config.dataset.name=flowers
"""

import pathlib
import shutil
import subprocess
from collections.abc import Sequence

from absl import flags

from cm_jax import cli
from cm_jax.bounds import Natural
from cm_jax.data import card, readers
from cm_jax.data import prepare as data_prepare
from cm_jax.data.readers import idx
from cm_jax.errors import UserError
from cm_jax.terminal import say_next

FLAGS = flags.FLAGS
flags.DEFINE_string(
    'dataset', '', 'The name of the data set to write: mnist, fashion_mnist, cifar10 or a new name.'
)
flags.DEFINE_string('from', '', f'The input: {readers.LEGAL}.')
flags.DEFINE_string(
    'data_dir', '', "The folder in which TFDS keeps its data; empty means TFDS's default."
)
cli.number_flag(
    'size',
    0,
    'Centre-crop and resize images to this many pixels a side; 0 keeps their size.',
    Natural,
)
flags.DEFINE_string(
    'crop',
    '',
    'By which rule --size crops and resizes: lanczos (the default; as EDM) or adm (as ADM, consistency '
    'models, EDM2 and ECT). The data card names it.',
)

DEBIAN_PACKAGE = 'dataset-fashion-mnist'


def debian_folder() -> str:
    """Returns the folder of Fashion-MNIST that Debian's package installed, or '' if there is none.

    The package manager says where the files are.
    """
    if not shutil.which('dpkg'):
        return ''
    listing = subprocess.run(['dpkg', '-L', DEBIAN_PACKAGE], capture_output=True, text=True)
    files = map(pathlib.Path, listing.stdout.splitlines())
    return next((str(file.parent) for file in files if idx.FILE_NAME.fullmatch(file.name)), '')


def main(argv: Sequence[str]) -> None:
    del argv
    dataset, path = FLAGS.dataset, FLAGS['from'].value
    if not dataset:
        raise UserError('--dataset=NAME is required: the name under which the data set is written')
    if not path and dataset.startswith('fashion_mnist'):
        path = debian_folder()
        if not path:
            raise UserError(
                f'no --from is given, and the package {DEBIAN_PACKAGE} is not installed: '
                f'apt-get install {DEBIAN_PACKAGE}, or give --from={readers.LEGAL}'
            )
    if not path:
        raise UserError(f'--from=PATH is required; legal: {readers.LEGAL}')
    prepared = data_prepare.prepare(dataset, path, FLAGS.data_dir, FLAGS.size, FLAGS.crop)
    print(f'{prepared.folder} {"written" if prepared.is_new else "is already prepared from this"}')
    for stored in prepared.cards.values():
        print(card.line(stored))
    own, where = f'configs/{dataset}_edm.py', f' --config.dataset.data_dir={FLAGS.data_dir}'
    if not pathlib.Path(own).exists():
        own = f'configs/own_edm.py --config.dataset.name={dataset}'
    workdir = f'--workdir=runs/{dataset}/edm'
    say_next([f'train --config={own} {workdir}{where if FLAGS.data_dir else ""}'])


if __name__ == '__main__':
    cli.run(main)
