"""evaluate reference: statistics over every image of a data set, as an .npz file."""

import pathlib
from typing import Any

from absl import flags

from cm_jax import data, references
from cm_jax.data import Source
from cm_jax.errors import UserError, check_name
from cm_jax.metrics.moments import rank_deficient
from cm_jax.scores import Evaluation, reference
from cm_jax.wiring import open_data, open_extractor

_DATA = flags.DEFINE_string(
    'data', None, 'reference: digits, tfds:NAME, folder:PATH, or a folder; else that of --config'
)
_DATA_DIR = flags.DEFINE_string('data_dir', None, 'reference: where prepared TFDS data sets are')
_SPLIT = flags.DEFINE_string(
    'split', None, 'reference: the split; else the reference of --config, or train'
)
_TO = flags.DEFINE_string('to', None, 'reference: the .npz file; else named after what is in it')
_FEATURES = flags.DEFINE_bool(
    'features', False, 'reference: with the features, which kid and pr need'
)

FLAGS = ('data', 'data_dir', 'split', 'to', 'features')
ARGUMENTS = {
    'digits': '',
    'folder': 'path',
    'tfds': 'name',
}  # source -> what stands behind its colon


def open_named(text: str, split: str, data_dir: str | None) -> Source:
    """The source written 'tfds:NAME', 'folder:PATH', 'digits' or as the path of a folder.

    Raises UserError on another one.
    """
    name, colon, rest = text.partition(':')
    if name not in ARGUMENTS and pathlib.Path(text).expanduser().is_dir():
        name, colon, rest = 'folder', ':', text
    check_name('data source', name, ARGUMENTS)
    argument = ARGUMENTS[name]
    if bool(argument) != bool(colon and rest):
        legal = f'{name}:{argument.upper()}' if argument else name
        raise UserError(f'--data={text}: write {legal}')
    settings = {argument: rest} if argument else {}
    if data_dir is not None:
        if name != 'tfds':
            raise UserError(f'--data_dir is for tfds:NAME, and --data={text}')
        settings['data_dir'] = data_dir
    return data.open_source(name, split, **settings)


def open_asked(ev: Evaluation, config: Any) -> Source:
    """The source of the flags, or of a config."""
    split = _SPLIT.value
    if _DATA.value is not None:
        return open_named(_DATA.value, split or 'train', _DATA_DIR.value)
    if config is None:
        raise UserError(
            '--data=SOURCE is required, or --config=FILE, whose data set is taken; e.g. '
            '--data=tfds:cifar10, --data=folder:PATH'
        )
    if _DATA_DIR.value is not None:
        raise UserError('--data_dir goes with --data; with --config it is config.dataset.data_dir')
    if split is None and references.is_file(ev.reference):
        raise UserError(f'config.evaluation.reference is the file {ev.reference}: give --split')
    return open_data(config, split or ev.reference)


def target(source: Source, extractor: str) -> pathlib.Path:
    """Where the file goes. Raises UserError if it is there, or its folder is not."""
    name = f'{source.name}_{source.split}_{extractor}{references.SUFFIX}'.replace('/', '-')
    path = pathlib.Path(_TO.value or name).expanduser()
    if path.suffix != references.SUFFIX:
        raise UserError(f'--to={_TO.value}: the file is {references.SUFFIX}')
    if path.exists() or not path.absolute().parent.is_dir():
        problem = 'is there already' if path.exists() else 'is in a folder that is not there'
        raise UserError(f'--to={path} {problem}')
    return path


def write(ev: Evaluation, config: Any) -> None:
    """Computes and writes the statistics that the flags ask for."""
    source = open_asked(ev, config)
    path = target(source, ev.extractor)
    extractor = open_extractor(ev)
    found = reference(source, extractor, ev.batch_size, keep=_FEATURES.value)
    references.save(path, found, extractor)
    print(f'{references.describe(found.id)}, by {extractor.name} {extractor.checksum[:8]}: {path}')
    if rank_deficient(found.moments):
        print(
            f'warning: fewer images than its {extractor.dim} features: the covariance is singular'
        )
