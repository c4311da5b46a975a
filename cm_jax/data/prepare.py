"""Writes what readers.py reads as a TFDS data set, offline and without TensorFlow.

The set is built in `<data_dir>/<dataset>/.preparing` and moved to its place in one rename when all
of it, data cards included, is written: a run that was killed leaves nothing that looks prepared.
"""

import contextlib
import fcntl
import io
import json
import os
import pathlib
import re
import shutil
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import tensorflow_datasets as tfds
import tqdm
from PIL import Image

from cm_jax.data import card, readers
from cm_jax.data.readers import cifar10
from cm_jax.data.sources import tfds as tfds_source
from cm_jax.errors import UserError

VERSION = '1.0.0'  # of a data set that TFDS has no builder for
STAGING = '.preparing'
FASHION_MNIST_CLASSES = (
    'T-shirt/top',
    'Trouser',
    'Pullover',
    'Dress',
    'Coat',
    'Sandal',
    'Shirt',
    'Sneaker',
    'Bag',
    'Ankle boot',
)


class Stock(NamedTuple):
    """A data set that TFDS itself has: what we write under its name must be the same set."""

    kind: str
    version: str
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    has_id: bool


STOCK = {
    'mnist': Stock('idx', '3.0.1', (28, 28, 1), tuple('0123456789'), False),
    'fashion_mnist': Stock('idx', '3.0.1', (28, 28, 1), FASHION_MNIST_CLASSES, False),
    'cifar10': Stock('cifar10', '3.0.2', (32, 32, 3), cifar10.CLASSES, True),
}


class Prepared(NamedTuple):
    """Where the records are, the card of each split, and whether they were written just now."""

    folder: pathlib.Path
    cards: dict[str, dict[str, Any]]
    is_new: bool


def prepare(dataset: str, path: str, data_dir: str = '', size: int = 0) -> Prepared:
    """Reads `path` (see readers.LEGAL) and writes it as the TFDS data set `dataset`.

    `data_dir` '' is TFDS's default. A set that was prepared from the same files is left as it is.
    Raises UserError before anything is written, where the input or the name is wrong.
    """
    if not re.fullmatch('[a-z][a-z0-9_]*', dataset):
        raise UserError(f'dataset {dataset!r}; legal: small letters, digits and _, a letter first')
    if '://' in data_dir:
        raise UserError(f'data_dir {data_dir!r} is remote; prepare in a local folder, then copy it')
    found = readers.read(pathlib.Path(path).expanduser(), size)
    stock = _stock(dataset, found)
    home = pathlib.Path(data_dir or tfds.core.constants.DATA_DIR).expanduser() / dataset
    made_from = {'kind': found.kind, 'size': size, 'files': found.files}
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f'data_dir {str(home.parent)!r} cannot be made: {error.strerror}'
        ) from error
    with _alone(home):
        final = home / stock.version
        if final.exists():
            return Prepared(final, _stored_cards(final, found.counts, made_from), False)
        staging = home / STAGING
        shutil.rmtree(staging, ignore_errors=True)
        try:
            written = _write(dataset, stock, found, staging)
            cards = {}
            for split in found.counts:
                source = tfds_source.open_source(split, f'{dataset}:{stock.version}', str(staging))
                cards[split] = {**card.make(source), 'made_from': made_from}
                text = json.dumps(cards[split], indent=2)
                (written / tfds_source.card_name(split)).write_text(text + '\n')
            written.rename(final)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return Prepared(final, cards, True)


def _stock(dataset: str, found: readers.Found) -> Stock:
    """What is to be written; raises UserError where TFDS's own `dataset` is something else."""
    own = Stock(found.kind, VERSION, found.image_shape, found.class_names, False)
    stock = STOCK.get(dataset)
    if stock is None:
        return own
    too_many = len(found.class_names) > len(stock.class_names)
    if found.kind != stock.kind or found.image_shape != stock.image_shape or too_many:
        raise UserError(
            f'{dataset} is the name of the standard set ({stock.kind}, {stock.image_shape}, '
            f'{len(stock.class_names)} classes), this is {found.kind}, {found.image_shape}, '
            f'{len(found.class_names)} classes: give another --dataset, such as '
            f'{dataset}_{found.image_shape[0]}'
        )
    return stock


@contextlib.contextmanager
def _alone(home: pathlib.Path) -> Iterator[None]:
    """Holds a lock on a folder, which ends with the process; UserError if somebody else has it."""
    handle = os.open(home, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f'another prepare is writing {home}; wait until it ends') from error
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(handle)


def _stored_cards(
    final: pathlib.Path, splits: Iterable[str], made_from: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """The cards of a set that is there; raises UserError unless it was made from the same input."""
    files = final.glob(tfds_source.card_name('*'))
    cards = {file.name: json.loads(file.read_text()) for file in files}
    if not cards:
        raise UserError(f'{final} is there already, not from this command; use it, or remove it')
    for stored in cards.values():
        if stored['made_from'] != made_from:
            raise UserError(
                f'{final} is there already, made from {stored["made_from"]}, this is {made_from}; '
                'remove it, or give another --dataset or --data_dir'
            )
    return {split: cards[tfds_source.card_name(split)] for split in splits}


def _write(dataset: str, stock: Stock, found: readers.Found, staging: pathlib.Path) -> pathlib.Path:
    """Writes the records below `staging` and returns their folder."""
    features: dict[str, Any] = {'image': tfds.features.Image(shape=stock.image_shape)}
    if stock.class_names:
        features['label'] = tfds.features.ClassLabel(names=stock.class_names)
    if stock.has_id:
        features['id'] = tfds.features.Text()

    with tfds.core.registered.skip_registration():

        class Builder(tfds.core.GeneratorBasedBuilder):
            """The set; TFDS names the folder and the files after the class attributes."""

            name = dataset
            VERSION = tfds.core.Version(stock.version)

            def _info(self) -> tfds.core.DatasetInfo:
                return tfds.core.DatasetInfo(
                    builder=self,
                    description=f'{dataset}, prepared by cm_jax from {", ".join(found.files)}',
                    features=tfds.features.FeaturesDict(features),
                    supervised_keys=('image', 'label') if stock.class_names else None,
                )

            def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
                return {split: self._generate_examples(split) for split in found.counts}

            def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
                examples = found.examples(split)
                total = found.counts[split]
                bar = tqdm.tqdm(examples, f'writing {split}', total, unit=' images', disable=None)
                for index, (image, label) in enumerate(bar):
                    example = {'image': _png(image), 'label': label, 'id': f'{split}_{index:05d}'}
                    # The number as key gives the standard sets the order that TFDS gives them.
                    yield index, {key: example[key] for key in features}

    tfds.disable_progress_bar()
    builder = Builder(data_dir=str(staging))
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints that it "downloads"
        builder.download_and_prepare(file_format='array_record', download_config=config)
    return pathlib.Path(builder.data_dir)


def _png(image: Any) -> bytes:
    file = io.BytesIO()
    pixels = image[..., 0] if image.shape[-1] == 1 else image
    # Level 3 is twice as fast as Pillow's default 6 and 3 % larger on Fashion-MNIST.
    Image.fromarray(pixels).save(file, 'PNG', compress_level=3)
    return file.getvalue()
