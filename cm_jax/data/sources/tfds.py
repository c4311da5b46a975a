"""Any TFDS image data set that is prepared on disk, by name and split, without TensorFlow.

TFDS opens the records (array_record or another format with random access) and says what features
they have. Pillow alone decodes the images, so that a file gives the same pixels on every machine.
"""

import io
import json
import re
import shlex
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.core.utils.version import list_all_versions

from cm_jax.data import Source, card, images
from cm_jax.errors import UserError, damage_is_one_line, shown
from cm_jax.files import expanded

NAME = re.compile(r'(?P<dataset>\w+)(/(?P<config>[\w.-]+))?(:(?P<version>\d+\.\d+\.\d+))?')
# The number of examples whose size is compared on opening, if TFDS does not know the image size.
PROBED = 16


def card_name(split: str) -> str:
    """Returns the name of the file beside the records that holds the data card of a split."""
    return f'data_card_{split}.json'


def prepare_command(dataset: str, data_dir: str) -> str:
    """Returns the command line that prepares a data set."""
    source = '' if dataset == 'fashion_mnist' else ' --from=PATH'
    where = f' --data_dir={shlex.quote(data_dir)}' if data_dir else ''
    return f'python -m cm_jax.prepare --dataset={dataset}{source}{where}'


def find(name: str, data_dir: str = '') -> epath.Path:
    """Returns the folder of the prepared data set `name`, which is 'dataset[/config][:version]'.

    Without a version it is the newest one. `data_dir` '' means TFDS's default folder. Nothing is
    downloaded. Raises UserError if the name is malformed, if a config has to be chosen, or if the
    data set is not on disk; the message then says which command prepares it.
    """
    match = NAME.fullmatch(name)
    if not name:
        raise UserError('config.dataset.name is empty: the name that the data were prepared under')
    if not match:
        raise UserError(f'data set name {name!r}; legal: dataset, dataset/config, dataset:1.2.3')
    root = epath.Path(expanded(data_dir or tfds.core.constants.DATA_DIR)) / match['dataset']
    home = root / match['config'] if match['config'] else root
    versions = [match['version']] if match['version'] else map(str, list_all_versions(home))
    folders = [home / version for version in versions]
    prepared = [folder for folder in folders if (folder / 'features.json').exists()]
    if prepared:
        return prepared[-1]
    entries = root.iterdir() if root.exists() else ()
    configs = [entry.name for entry in entries if list_all_versions(entry)]
    if configs and not match['config']:
        raise UserError(f'{name} has several configs in {root}; give {name}/CONFIG: {configs}')
    raise UserError(
        f'{name} is not prepared in {root.parent}; prepare it once with: '
        f'{prepare_command(match["dataset"], data_dir)}'
    )


def _image_key(info: tfds.core.DatasetInfo) -> str:
    """Returns the name of the image feature: 'image', or that of the only image feature.

    Raises UserError if there is no such feature, or if it is not uint8 with 1 or 3 channels.
    """
    keys = [name for name, value in info.features.items() if isinstance(value, tfds.features.Image)]
    key = 'image' if 'image' in keys else keys[0] if len(keys) == 1 else None
    if key is None:
        raise UserError(
            f'{info.name} has no image feature, or several and none called image; its features: '
            f'{list(info.features)}'
        )
    feature = info.features[key]
    if feature.np_dtype != np.uint8 or feature.shape[2:] not in ((1,), (3,)):
        raise UserError(
            f'{info.name} has images {feature.np_dtype} {feature.shape}; legal: uint8 [H,W,1 or 3]'
        )
    return key


def open_source(split: str, name: str, data_dir: str = '') -> Source:
    """Opens a split of the prepared data set `name`; it may be a slice, such as 'train[:10%]'.

    `data_dir` '' means TFDS's default folder. If the data set has no class labels, num_classes and
    all labels are 0. Raises UserError if the data set is not prepared, if the split is unknown or
    empty, or if the images differ in size.
    """
    return open_folder(find(name, data_dir), split, name)


def open_folder(folder: epath.Path, split: str, name: str) -> Source:
    """Opens a split of the prepared data set in `folder`, which messages call `name`.

    Raises UserError as `open_source` does, and if a file of the data set is damaged or names a class
    that is not TFDS's own.
    """
    with damage_is_one_line(folder):
        _check_classes(folder)
        builder = tfds.builder_from_directory(folder)
        info = builder.info
        key = _image_key(info)
        label = dict(info.features.items()).get('label')
        num_classes = label.num_classes if isinstance(label, tfds.features.ClassLabel) else 0
        records = _records(builder, split, key)
        shape = info.features[key].shape

    def examples(indices: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        with damage_is_one_line(folder):
            stored = records.__getitems__(indices.tolist())
        decoded = [
            images.pixels(io.BytesIO(example[key]), f'{name}, image {index}', shape[-1])
            for index, example in zip(indices, stored)
        ]
        labels = [example['label'] if num_classes else 0 for example in stored]
        return decoded, np.array(labels, np.int32)

    if None in shape:
        probed, _ = examples(np.arange(PROBED) * len(records) // PROBED)
        _check_shapes(name, probed, probed[0].shape)
        shape = probed[0].shape

    def get(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        decoded, labels = examples(indices)
        _check_shapes(name, decoded, shape)
        return np.stack(decoded), labels

    height, width, channels = shape
    return Source(
        name=info.name,
        split=split,
        count=len(records),
        image_shape=(height, width, channels),
        num_classes=num_classes,
        get=get,
        card=_card(folder, split, info),
        crop=_crop(folder),
    )


def _check_classes(folder: epath.Path) -> None:
    """Raises UserError if features.json names a class of another package than TFDS.

    TFDS would import that package, which may lie in the folder that the program is started in.
    """
    for name in _class_names(json.loads((folder / 'features.json').read_text())):
        if not name.startswith('tensorflow_datasets.'):
            raise UserError(
                f'{folder} asks for the class {shown(name)}; legal: features of tensorflow_datasets'
            )


def _class_names(node: Any) -> Iterator[str]:
    """Yields the names of classes in features.json, under the keys of all versions of TFDS."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ('pythonClassName', 'python_class_name', 'type') and isinstance(value, str):
                yield value
            yield from _class_names(value)
    elif isinstance(node, list):
        for value in node:
            yield from _class_names(value)


def _records(builder: tfds.core.DatasetBuilder, split: str, key: str) -> Any:
    """Returns TFDS's random access to a split, in which the feature `key` is not decoded.

    Raises UserError if the split is unknown or empty, or if the format needs TensorFlow.
    """
    info = builder.info
    try:
        count = info.splits[split].num_examples
    except (KeyError, NotImplementedError, ValueError):
        count = 0
    if count <= 0:
        counts = ', '.join(f'{name} ({part.num_examples:,})' for name, part in info.splits.items())
        raise UserError(
            f'split {split!r} of {info.name} is unknown or empty; legal: {counts}, all, and slices '
            f"or sums such as 'train[:10%]', 'train[100:200]', 'train+test'"
        )
    try:
        return builder.as_data_source(split, decoders={key: tfds.decode.SkipDecoding()})
    except NotImplementedError as error:
        raise UserError(
            f'{builder.data_dir} is stored as {info.file_format.value}, which needs TensorFlow; '
            "prepare it with cm_jax.prepare, or with TFDS's file_format='array_record'"
        ) from error


def _check_shapes(name: str, decoded: list[np.ndarray], shape: tuple[int, ...]) -> None:
    """Raises UserError if a decoded image of the data set `name` has a shape other than `shape`."""
    other_shapes = [image.shape for image in decoded if image.shape != shape]
    if other_shapes:
        dataset = re.split('[/:]', name)[0]
        raise UserError(
            f'{name} has images of different sizes, {shape} and {other_shapes[0]}; make them one size '
            f'from a folder or zip of the images: python -m cm_jax.prepare --dataset={dataset}_64 '
            f'--from=PATH --size=64'
        )


def _card(folder: epath.Path, split: str, info: tfds.core.DatasetInfo) -> dict[str, Any] | None:
    """Returns the data card stored with a split, or None; slices and sums of splits have none."""
    file = folder / card_name(split)
    return card.read(file) if split in info.splits and file.exists() else None


def _crop(folder: epath.Path) -> str:
    """Returns the rule by which all splits of a data set were cropped, or '' if no card names it."""
    cards = map(card.read, sorted(folder.glob(card_name('*'))))
    return next((card.crop_rule(stored) for stored in cards), '')
