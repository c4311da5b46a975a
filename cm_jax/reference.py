"""Computes the statistics of a data set's images, as a file that many runs can be compared with.

    python -m cm_jax.reference --data=tfds:cifar10 --split=train \\
        --extractor=inception --weights=FILE --to=cifar10_train.npz

The data set is that of --data, or else that of --config. All images of the split are used. Evaluations
take the file that is written by `evaluate --reference=FILE.npz`.

`python -m cm_jax.evaluate reference ...` is another spelling of this command.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

from absl import flags

from cm_jax import cli, data
from cm_jax.data import Source
from cm_jax.errors import UserError, check_name
from cm_jax.evaluation import references
from cm_jax.evaluation.extractors import open_extractor, override
from cm_jax.evaluation.scores import reference
from cm_jax.files import expanded
from cm_jax.metrics.moments import rank_deficient
from cm_jax.settings import Evaluation, RunSettings, parse_run
from cm_jax.weights import inception
from cm_jax.wiring import open_data

_CONFIG = cli.config_flag('a config whose sections `dataset` and `evaluation` are used')
_DATA = flags.DEFINE_string(
    'data', None, 'digits, tfds:NAME, folder:PATH, or a folder; default: the data set of --config'
)
_DATA_DIR = flags.DEFINE_string('data_dir', None, 'the folder of prepared TFDS data sets')
_SPLIT = flags.DEFINE_string(
    'split', None, "the split; default: the config's evaluation.reference, or train"
)
_TO = flags.DEFINE_string(
    'to', None, 'the .npz file to write; default: named after data set, split and extractor'
)
_FEATURES = flags.DEFINE_bool(
    'features', False, 'store the features of every image too, which the metrics kid and pr need'
)
_EXTRACTOR = cli.extractor_flags()

# The data sources that --data can name: the keyword argument of the source that the text after the
# colon is given to, or '' if the source takes none.
ARGUMENTS = {'digits': '', 'folder': 'path', 'tfds': 'name'}


def open_named(text: str, split: str, data_dir: str | None) -> Source:
    """Returns the data source that `text` names: the value of --data.

    It is written 'digits', 'tfds:NAME', 'folder:PATH', or as the path of a folder. Raises UserError if
    it is none of these, or if --data_dir is given for a source that is not a TFDS data set.
    """
    name, _, value = text.partition(':')
    if name not in ARGUMENTS and pathlib.Path(expanded(text)).is_dir():
        name, value = 'folder', text
    check_name('data source', name, ARGUMENTS)
    argument = ARGUMENTS[name]
    if bool(argument) != bool(value):
        legal = f'{name}:{argument.upper()}' if argument else name
        raise UserError(f'--data={text}: write {legal}')
    settings: dict[str, Any] = {argument: value} if argument else {}
    if data_dir is not None:
        if name != 'tfds':
            raise UserError(f'--data_dir goes with --data=tfds:NAME, and not with --data={text}')
        settings['data_dir'] = data_dir
    return data.open_source(name, split, **settings)


def open_source(settings: RunSettings | None) -> Source:
    """Returns the data source of --data, or that of the config's settings if --data was not given.

    Raises UserError if there is neither, or if the flags do not go together.
    """
    split = _SPLIT.value
    if _DATA.value is not None:
        return open_named(_DATA.value, split or 'train', _DATA_DIR.value)
    if settings is None:
        raise UserError(
            '--data=SOURCE is required, or --config=FILE, whose data set is taken; e.g. '
            '--data=tfds:cifar10, --data=folder:PATH'
        )
    if _DATA_DIR.value is not None:
        raise UserError('--data_dir goes with --data; with --config it is config.dataset.data_dir')
    reference = settings.evaluation.reference
    if split is None and references.is_file(reference):
        raise UserError(f'config.evaluation.reference is the file {reference}: give --split')
    return open_data(settings.dataset, split or reference)


def output_path(source: Source, extractor: str) -> pathlib.Path:
    """Returns the path of the file to write: --to, or a name made of data set, split and extractor.

    Raises UserError if it does not end with .npz, if the file exists, or if its folder does not.
    """
    name = f'{source.name}_{source.split}_{extractor}{references.SUFFIX}'.replace('/', '-')
    path = pathlib.Path(expanded(_TO.value or name))
    if path.suffix != references.SUFFIX:
        raise UserError(f'--to={_TO.value}: the name of the file must end with {references.SUFFIX}')
    if path.exists() or not path.absolute().parent.is_dir():
        problem = 'is there already' if path.exists() else 'is in a folder that is not there'
        raise UserError(f'--to={path} {problem}')
    return path


def main(argv: Sequence[str]) -> None:
    del argv
    settings = None
    if _CONFIG.value is not None:
        settings = parse_run(cli.required_config(_CONFIG).to_dict())
    default = settings.evaluation if settings else Evaluation()
    overrides = {
        'extractor': _EXTRACTOR.extractor.value or (None if settings else inception.NAME),
        'weights': _EXTRACTOR.weights.value,
        'batch_size': _EXTRACTOR.batch_size.value,
    }
    evaluation = override(default, overrides, fetch=_EXTRACTOR.download.value)
    source = open_source(settings)
    path = output_path(source, evaluation.extractor)
    extractor = open_extractor(evaluation)
    statistics = reference(source, extractor, evaluation.batch_size, keep=_FEATURES.value)
    references.save(path, statistics, extractor)
    name = references.describe(statistics.id)
    print(f'{name}, by {extractor.name} {extractor.checksum[:8]}: {path}')
    print(f'now: python -m cm_jax.evaluate --workdir=RUN --reference={path}', flush=True)
    if rank_deficient(statistics.moments):
        print(
            f'warning: the data set has fewer images than the {extractor.dim} features of the '
            'extractor, so that their covariance is singular'
        )


if __name__ == '__main__':
    cli.run(main)
