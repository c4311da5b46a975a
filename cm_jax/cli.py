"""How every command starts and fails, `run(main)`, and the flags that several commands have."""

import contextlib
import dataclasses
import functools
import logging as python_logging
import os
import pathlib
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence

import jax
from absl import app, flags, logging
from etils import epath
from ml_collections import ConfigDict, config_flags

from cm_jax.errors import FULL_DISK, UserError, check_name

flags.disclaim_key_flags()  # the flags that are defined below belong to the command that asks for them


def workdir_flag(meaning: str = 'the run folder') -> flags.FlagHolder:
    """Defines --workdir; its value is read by `required_workdir`."""
    return flags.DEFINE_string('workdir', None, meaning)


def config_flag(meaning: str = 'config file, e.g. configs/digits_ect.py') -> flags.FlagHolder:
    """Defines --config; its value is read by `required_config`."""
    return config_flags.DEFINE_config_file('config', None, meaning)


def fresh_flag() -> flags.FlagHolder:
    """Defines --fresh."""
    return flags.DEFINE_bool('fresh', False, 'set the folder of another run aside and start afresh')


def step_flag(meaning: str = '') -> flags.FlagHolder:
    """Defines --step."""
    text = f'{meaning}step of the trajectory; the last if not given'
    return flags.DEFINE_integer('step', None, text)


def ema_flag(meaning: str = '') -> flags.FlagHolder:
    """Defines --ema."""
    text = f"{meaning}which average, e.g. 0.999 or posthoc0.07; '' is the weights themselves"
    return flags.DEFINE_string('ema', None, text)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExtractorFlags:
    """The flags that choose an extractor: of `evaluate` and `reference`."""

    extractor: flags.FlagHolder
    weights: flags.FlagHolder
    download: flags.FlagHolder
    batch_size: flags.FlagHolder


def extractor_flags() -> ExtractorFlags:
    """Defines --extractor, --weights, --download and --batch_size."""
    return ExtractorFlags(
        extractor=flags.DEFINE_string(
            'extractor', None, 'e.g. inception, dinov2_vitl14, lenet_digits'
        ),
        weights=flags.DEFINE_string('weights', None, 'the file of the weights of the extractor'),
        download=flags.DEFINE_bool(
            'download',
            False,
            "fetch the extractor's weights, if they are not there; checks their sha256",
        ),
        batch_size=flags.DEFINE_integer('batch_size', None, 'images at a time; changes no score'),
    )


def fail(text: str) -> None:
    """Prints one line and ends the process with status 2."""
    warnings.simplefilter('ignore')  # what a library left half done is no news now
    print(f'error: {" ".join(text.split())}', file=sys.stderr)
    sys.stderr.flush()
    sys.exit(2)


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Turns a user's slip and a full disk into one line and exit status 2; all else is a traceback."""
    try:
        yield
    except UserError as error:
        fail(str(error))
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        fail(f'{error.strerror}: {error.filename or "no file named"}; what was complete is kept')


def drop_late_callbacks(unraisable) -> None:
    """Says nothing of an answer that comes after a save has failed: its event loop is gone."""
    if str(unraisable.exc_value) != 'Event loop is closed':
        sys.__unraisablehook__(unraisable)


def required_workdir(flag: flags.FlagHolder) -> epath.Path:
    """The value of --workdir as a path. Raises UserError if it was not given."""
    if not flag.value:
        raise UserError('--workdir=FOLDER is required: the run folder')
    return epath.Path(flag.value).expanduser()


def required_config(flag: flags.FlagHolder) -> ConfigDict:
    """The config of --config, locked. Raises UserError if there is none or it cannot be loaded."""
    if flag.value is None:
        raise UserError('--config=FILE is required, e.g. --config=configs/digits_ect.py')
    path = epath.Path(config_flags.get_config_filename(flags.FLAGS[flag.name]).partition(':')[0])
    if not path.exists():
        found = sorted(p.name for p in path.parent.glob('*.py')) if path.parent.exists() else []
        raise UserError(f'no config file {path}; {path.parent} has: {", ".join(found) or "none"}')
    return flag.value


def join_processes(spec: str) -> None:
    """Joins the other processes of a run: '' is none, 'auto', or 'HOST:PORT,COUNT,INDEX'."""
    if spec == 'auto':
        jax.distributed.initialize()
    elif spec:
        address, *numbers = spec.split(',')
        if len(numbers) != 2 or not all(number.isdigit() for number in numbers):
            raise UserError(f'--distributed is auto or HOST:PORT,COUNT,INDEX, got {spec!r}')
        jax.distributed.initialize(address, *map(int, numbers))


def refuse_flags(names: Sequence[str], command: str) -> None:
    """Raises UserError if one of the flags was given, which the command would not read."""
    given = [name for name in names if flags.FLAGS[name].present]
    if given:
        raise UserError(f'{command} takes no --{given[0]}')


def set_compilation_cache() -> None:
    """Turns JAX's persistent compilation cache on, unless the user has set where it is."""
    if not jax.config.jax_compilation_cache_dir:
        home = os.environ.get('XDG_CACHE_HOME', pathlib.Path.home() / '.cache')
        jax.config.update('jax_compilation_cache_dir', str(pathlib.Path(home) / 'cm_jax' / 'xla'))


def integers(name: str, values: Sequence[str] | None) -> tuple[int, ...]:
    """The numbers of a list flag; () if it was not given. Raises UserError on anything else."""
    try:
        return tuple(int(value) for value in values or ())
    except ValueError:
        raise UserError(f'--{name} takes whole numbers, got {",".join(values)}') from None


def explain_override(argv: Sequence[str], config: ConfigDict) -> str:
    """What is wrong with the first `--config.x=y` that names no key, with the legal keys."""
    for argument in argv:
        if not argument.startswith('--config.'):
            continue
        node = config
        for part in argument.removeprefix('--config.').partition('=')[0].split('.'):
            legal = node.keys() if isinstance(node, ConfigDict) else ()
            try:
                check_name(f'config key in {argument}:', part, legal)
            except UserError as error:
                return str(error)
            node = node[part]
    return ''


def parse_flags(argv: Sequence[str], arguments: bool = False) -> Sequence[str]:
    """Parses the flags; whatever is wrong with them ends the process with one line and status 2.

    `arguments`: the command takes arguments beside its options, in any order.
    """
    flags.FLAGS.set_gnu_getopt(arguments)
    try:
        rest = flags.FLAGS(argv)
    except flags.Error as error:
        text = str(error)
        if 'Traceback' in text:  # of the config file: its last line says what is wrong
            text = text.strip().splitlines()[-1]
        fail(text)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        sys.argv = [argument for argument in argv if not argument.startswith('--config.')]
        flags.FLAGS.unparse_flags()
        flags.FLAGS(sys.argv)  # config_flags reads sys.argv too
        fail(explain_override(argv, flags.FLAGS['config'].value) or str(error))
    if len(rest) > 1 and not arguments:
        fail(f'unknown argument {rest[1]!r}; options begin with --')
    return rest


def run(main: Callable[[Sequence[str]], None], arguments: bool = False) -> None:
    """Parses the flags, then calls `main(argv)`; a UserError from it is one line and status 2.

    Arguments that are no options are refused, unless the command takes them.
    """
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')  # silences the C++ log of JAX's libraries
    # Libraries log a failure at length, in their threads too, and then raise it: once is enough.
    logging.set_verbosity(logging.FATAL)
    python_logging.getLogger('asyncio').setLevel(python_logging.CRITICAL)
    sys.unraisablehook = drop_late_callbacks

    def guarded(argv: Sequence[str]) -> None:
        set_compilation_cache()
        with one_line_errors():
            main(argv)

    app.run(guarded, flags_parser=functools.partial(parse_flags, arguments=arguments))
