"""Writes what data/readers reads as a TFDS data set, offline and without TensorFlow.

The data set is built in `<data_dir>/<dataset>/.preparing`. Once all of it is written, data cards
included, a single rename moves it to its place. A run that is killed therefore never leaves an
incomplete data set that looks prepared.
"""

import contextlib
import io
import json
import pathlib
import re
import shutil
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from PIL import Image

from cm_jax import locks
from cm_jax.data import card, images, readers
from cm_jax.data.readers import cifar10
from cm_jax.data.sources import tfds as tfds_source
from cm_jax.errors import UserError, check_name
from cm_jax.files import expanded
from cm_jax.terminal import IMAGES, progress

VERSION = '1.0.0'  # the version of a data set that is not one of STOCK
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
    """What a data set that is written consists of; `kind` is that of readers.Contents."""

    kind: str
    version: str
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    has_id: bool  # whether every example has a text feature 'id', such as 'train_00007'


# The data sets that TFDS has itself: what is written under one of these names must be that data set.
STOCK = {
    'mnist': Stock(
        kind='idx',
        version='3.0.1',
        image_shape=(28, 28, 1),
        class_names=tuple('0123456789'),
        has_id=False,
    ),
    'fashion_mnist': Stock(
        kind='idx',
        version='3.0.1',
        image_shape=(28, 28, 1),
        class_names=FASHION_MNIST_CLASSES,
        has_id=False,
    ),
    'cifar10': Stock(
        kind='cifar10',
        version='3.0.2',
        image_shape=(32, 32, 3),
        class_names=cifar10.CLASSES,
        has_id=True,
    ),
}


class Prepared(NamedTuple):
    """A data set that is prepared on disk."""

    folder: pathlib.Path  # where its records are
    cards: dict[str, dict[str, Any]]  # split -> its data card
    is_new: bool  # False if it was already there, made from the same files


def prepare(dataset: str, path: str, data_dir: str = '', size: int = 0, crop: str = '') -> Prepared:
    """Reads `path` (see readers.LEGAL), writes it as the TFDS data set `dataset` and returns it.

    `data_dir` '' means TFDS's default folder. With a `size` images are cropped and resized by the rule
    `crop` (see `readers.read`); '' is images.DEFAULT_CROP. The data cards name the rule. A data set
    that was already prepared from the same files by the same rule is left as it is.

    Raises UserError, and writes no data set, if the input cannot be read, if the name is not legal or
    belongs to a standard data set of TFDS that the input is not, if there is no such rule or it has no
    `size` to crop to, if `data_dir` is remote or cannot be made, or if a data set made from other files
    or by another rule is already there.
    """
    if not re.fullmatch('[a-z][a-z0-9_]*', dataset):
        raise UserError(f'dataset {dataset!r}; legal: small letters, digits and _, a letter first')
    if '://' in data_dir:
        raise UserError(f'data_dir {data_dir!r} is remote; prepare in a local folder, then copy it')
    rule = _rule(crop, size)
    contents = readers.read(pathlib.Path(expanded(path)), size, rule)
    stock = _stock(dataset, contents)
    home = pathlib.Path(expanded(data_dir or tfds.core.constants.DATA_DIR)) / dataset
    made_from = {'kind': contents.kind, 'size': size, 'files': contents.files}
    made = {'crop': rule, 'made_from': made_from}
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f'data_dir {str(home.parent)!r} cannot be made: {error.strerror}'
        ) from error
    final = home / stock.version
    if not final.exists():
        with locks.hold(epath.Path(home)):
            if not final.exists():
                return Prepared(final, _build(dataset, stock, contents, home, made), True)
    return Prepared(final, _stored_cards(final, contents.counts, made), False)


def _build(
    dataset: str,
    stock: Stock,
    contents: readers.Contents,
    home: pathlib.Path,
    made: dict[str, Any],
) -> dict[str, dict[str, Any]]:
    """Writes a data set into its folder below `home` and returns its data cards.

    `made` is what the cards hold of its making.
    """
    staging = home / STAGING
    shutil.rmtree(staging, ignore_errors=True)
    try:
        written = _write(dataset, stock, contents, staging)
        cards = {}
        for split in contents.counts:
            name = f'{dataset}:{stock.version}'
            source = tfds_source.open_source(split, name, str(staging))
            cards[split] = card.make(source) | made
            text = json.dumps(cards[split], indent=2)
            (written / tfds_source.card_name(split)).write_text(text + '\n')
        written.rename(home / stock.version)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return cards


def _rule(crop: str, size: int) -> str:
    """Returns the rule by which images are cropped, or '' if they keep their size.

    Raises UserError if there is no rule `crop`, or no `size` for it.
    """
    if not crop:
        return images.DEFAULT_CROP if size else ''
    check_name('rule --crop', crop, images.CROPS)
    if not size:
        raise UserError(f'--crop={crop} needs --size=N, the pixels of a side of the images')
    return crop


def _stock(dataset: str, contents: readers.Contents) -> Stock:
    """Returns what the data set `dataset` will consist of.

    Raises UserError if `dataset` is the name of one of STOCK and `contents` is not that one.
    """
    standard = STOCK.get(dataset)
    kind, shape, class_names = contents.kind, contents.image_shape, contents.class_names
    if standard is None:
        return Stock(
            kind=kind, version=VERSION, image_shape=shape, class_names=class_names, has_id=False
        )
    too_many = len(class_names) > len(standard.class_names)
    if kind != standard.kind or shape != standard.image_shape or too_many:
        raise UserError(
            f'{dataset} is the name of a standard data set ({standard.kind}, '
            f'{standard.image_shape}, {len(standard.class_names)} classes), but the input is {kind}, '
            f'{shape}, {len(class_names)} classes; give another --dataset, such as '
            f'{dataset}_{shape[0]}'
        )
    return standard


def _stored_cards(
    final: pathlib.Path, splits: Iterable[str], made: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Returns the data cards of a data set that is already in the folder `final`.

    Raises UserError if it has no cards, or was not made by the same rule and from the same input, which
    `made` holds as a card does.
    """
    files = final.glob(tfds_source.card_name('*'))
    cards = {file.name: card.read(file) for file in files}
    if not cards:
        raise UserError(
            f'{final} is there already, not from this command; use it as it is, or remove it'
        )
    for stored in cards.values():
        there = {'crop': card.crop_rule(stored), 'made_from': stored['made_from']}
        if there != made:
            raise UserError(
                f'{final} is there already, made from {_text(there)}, and the input is {_text(made)}; '
                'remove it, or give another --dataset or --data_dir'
            )
    return {split: cards[tfds_source.card_name(split)] for split in splits}


def _text(made: dict[str, Any]) -> str:
    """Returns what a data set was made from, and by which rule, as words of a message."""
    source = made['made_from']
    files = ', '.join(f'{name} (sha256 {sha256[:8]})' for name, sha256 in source['files'].items())
    size = f', size {source["size"]}' if source['size'] else ''
    rule = f', by the rule {made["crop"]!r}' if made['crop'] else ''
    return f'{source["kind"]} files {files}{size}{rule}'


def _write(
    dataset: str, stock: Stock, contents: readers.Contents, staging: pathlib.Path
) -> pathlib.Path:
    """Writes the records below `staging` and returns their folder."""
    features: dict[str, Any] = {'image': tfds.features.Image(shape=stock.image_shape)}
    if stock.class_names:
        features['label'] = tfds.features.ClassLabel(names=stock.class_names)
    if stock.has_id:
        features['id'] = tfds.features.Text()

    with tfds.core.registered.skip_registration():

        class Builder(tfds.core.GeneratorBasedBuilder):
            """The builder; TFDS names the folder and the files after its class attributes."""

            name = dataset
            VERSION = tfds.core.Version(stock.version)

            def _info(self) -> tfds.core.DatasetInfo:
                return tfds.core.DatasetInfo(
                    builder=self,
                    description=f'{dataset}, prepared by cm_jax from {", ".join(contents.files)}',
                    features=tfds.features.FeaturesDict(features),
                    supervised_keys=('image', 'label') if stock.class_names else None,
                )

            def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
                return {split: self._generate_examples(split) for split in contents.counts}

            def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
                examples = contents.examples(split)
                total = contents.counts[split]
                bar = progress(examples, total, f'writing {split}', IMAGES)
                for index, (image, label) in enumerate(bar):
                    example = {'image': _png(image), 'label': label, 'id': f'{split}_{index:05d}'}
                    # With this number as key, a standard set gets the order that TFDS gives it.
                    yield index, {key: example[key] for key in features}

    tfds.disable_progress_bar()
    builder = Builder(data_dir=str(staging))
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    with contextlib.redirect_stdout(io.StringIO()):  # hides TFDS's message about a "download"
        builder.download_and_prepare(file_format='array_record', download_config=config)
    return pathlib.Path(builder.data_dir)


def _png(image: np.ndarray) -> bytes:
    """Returns the bytes of a PNG file of an image uint8 [H,W,C]."""
    file = io.BytesIO()
    pixels = image[..., 0] if image.shape[-1] == 1 else image
    # Level 3 is twice as fast as Pillow's default 6 and 3 % larger on Fashion-MNIST.
    Image.fromarray(pixels).save(file, 'PNG', compress_level=3)
    return file.getvalue()
