"""What all commands share: how they start and fail (`run`), and the flags that several of them have.

A mistake of the user, a `UserError`, is shown as one line that begins with "error:", and the process
ends with status 2. Anything else that goes wrong is a bug, and is shown with its traceback. Ctrl-C and
SIGTERM end a command by one line, too (see interrupts.py).
"""

import contextlib
import dataclasses
import functools
import logging as python_logging
import os
import pathlib
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import jax
from absl import app, flags, logging
from etils import epath
from ml_collections import ConfigDict, config_flags

from cm_jax import interrupts, usage
from cm_jax.bounds import BatchSize, Count, Natural, described, fit
from cm_jax.errors import FULL_DISK, UNUSABLE_PATH, UserError, check_name
from cm_jax.files import check_folder, expanded

# What Python says of a word that is no number, and what a user is told.
PARSED = {
    'invalid literal for int() with base 10:': 'it must be a whole number, got',
    'could not convert string to float:': 'it must be a number, got',
}
OUT_OF_MEMORY = 'RESOURCE_EXHAUSTED'  # how XLA's error begins
# A flag that is defined by a function of this module is one of the command that calls it.
flags.disclaim_key_flags()


def workdir_flag(meaning: str = 'the run folder') -> flags.FlagHolder[str | None]:
    """Defines the flag --workdir and returns it; `required_workdir` reads its value."""
    return flags.DEFINE_string('workdir', None, meaning)


def config_flag(meaning: str = 'config file, e.g. configs/digits_ect.py') -> flags.FlagHolder:
    """Defines the flag --config and returns it; `required_config` reads its value."""
    return config_flags.DEFINE_config_file('config', None, meaning)


def fresh_flag() -> flags.FlagHolder[bool]:
    """Defines the flag --fresh and returns it."""
    text = 'start afresh: if the run folder exists, rename it first and keep it'
    return flags.DEFINE_bool('fresh', False, text)


def step_flag(meaning: str = '') -> flags.FlagHolder[int | None]:
    """Defines the flag --step and returns it; `meaning` stands before its help text."""
    text = (
        f'{meaning}the training step whose weights are taken; default: the last of the trajectory'
    )
    return number_flag('step', None, text, Natural)


def ema_flag(meaning: str = '') -> flags.FlagHolder[str | None]:
    """Defines the flag --ema and returns it; `meaning` stands before its help text."""
    text = (
        f'{meaning}which average of the weights is taken, e.g. 0.999 or posthoc0.07; '
        "'' is the weights themselves; default: config.sampling.ema"
    )
    return flags.DEFINE_string('ema', None, text)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExtractorFlags:
    """The flags of a command that scores: which extractor it takes, and how that is run."""

    extractor: flags.FlagHolder[str | None]
    weights: flags.FlagHolder[str | None]
    download: flags.FlagHolder[bool]
    batch_size: flags.FlagHolder[int | None]


class NumberParser(flags.ArgumentParser):
    """The parser of a flag whose values are the whole numbers of an annotation, such as `Count`."""

    def __init__(self, legal: Any):
        super().__init__()
        self.legal = legal
        self.syntactic_help = described(legal)

    def parse(self, argument: str | int) -> int:
        """Returns the number. Raises ValueError, which says what is legal, if it is not."""
        try:
            return fit(self.legal, int(argument))
        except ValueError:
            raise ValueError(f'it must be {described(self.legal)}') from None

    def flag_type(self) -> str:
        return 'int'


def number_flag(
    name: str, default: int | None, meaning: str, legal: Any = Count
) -> flags.FlagHolder[Any]:
    """Defines a flag of whole numbers and returns it; `legal` annotates those that it takes."""
    return flags.DEFINE(NumberParser(legal), name, default, meaning)


def unsupported_flag() -> flags.FlagHolder[bool]:
    """Defines the flag --unsupported and returns it; `open_run` takes its value."""
    text = 'guide by class (+cfg) even a network that was trained without label_dropout'
    return flags.DEFINE_bool('unsupported', False, text)


def extractor_flags() -> ExtractorFlags:
    """Defines the flags --extractor, --weights, --download and --batch_size and returns them."""
    return ExtractorFlags(
        extractor=flags.DEFINE_string(
            'extractor',
            None,
            'the features that are compared: lenet_digits, lenet_fashion_mnist, pixel, pixel_rgb; or, '
            'with the file of their weights, inception, dinov2_vitl14, vgg16, also as vgg16=FILE',
        ),
        weights=flags.DEFINE_string('weights', None, "the file of the extractor's weights"),
        download=flags.DEFINE_bool(
            'download',
            False,
            "download the file of the extractor's weights if it is not there, and check its sha256",
        ),
        batch_size=number_flag(
            'batch_size',
            None,
            'how many images are processed at a time; changes no score',
            BatchSize,
        ),
    )


def fail(text: str) -> NoReturn:
    """Prints 'error: ' and the text on one line, and ends the process with status 2."""
    warnings.simplefilter('ignore')  # libraries warn of work that this exit leaves unfinished
    print(f'error: {" ".join(text.split())}', file=sys.stderr)
    sys.stderr.flush()
    sys.exit(2)


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """A context in which the process ends with one line and status 2 where the user can help it.

    That is the case of a UserError, of a full disk, of a path that cannot be used, and where a device
    has too little memory. Every other exception is raised as it is.
    """
    try:
        yield
    except UserError as error:
        fail(str(error))
    except OSError as error:
        if error.errno in FULL_DISK:
            fail(
                f'{error.strerror}: {error.filename or "no file named"}; what was complete is kept'
            )
        if error.errno not in UNUSABLE_PATH or not error.filename:
            raise
        fail(f'{error.strerror}: {error.filename}')
    except jax.errors.JaxRuntimeError as error:
        if OUT_OF_MEMORY not in str(error):
            raise
        fail(
            f'{str(error).splitlines()[0]} A smaller batch size takes less; what was saved is kept'
        )


def ignore_late_callbacks(unraisable: Any) -> None:
    """Ignores one exception that nobody can handle, and reports any other: for sys.unraisablehook.

    After a failed save, a callback of the checkpoint library may run when its event loop is closed
    already. The failure itself was reported then.
    """
    if str(unraisable.exc_value) != 'Event loop is closed':
        sys.__unraisablehook__(unraisable)


def one_line_warning(message: Warning | str, *place: Any, **more: Any) -> str:
    """Returns a warning as a command shows it: without the place in the code."""
    return f'warning: {" ".join(str(message).split())}\n'


def required_workdir(flag: flags.FlagHolder[str | None], writes: bool = True) -> epath.Path:
    """Returns the value of --workdir as a path.

    Raises UserError if the flag was not given, and as `files.check_folder` does; `writes` says whether
    the command writes there.
    """
    if not flag.value:
        raise UserError('--workdir=FOLDER is required: the run folder')
    workdir = epath.Path(expanded(flag.value))
    check_folder(workdir, f'--{flag.name}', writes)
    return workdir


def required_config(flag: flags.FlagHolder) -> ConfigDict:
    """Returns the config of --config.

    Raises UserError if the flag was not given or its file does not exist.
    """
    if flag.value is None:
        raise UserError('--config=FILE is required, e.g. --config=configs/digits_ect.py')
    path = config_file(flag)
    if not path.exists():
        configs = sorted(p.name for p in path.parent.glob('*.py')) if path.parent.exists() else []
        raise UserError(f'no config file {path}; {path.parent} has: {", ".join(configs) or "none"}')
    return flag.value


def config_file(flag: flags.FlagHolder) -> epath.Path:
    """Returns the file of --config, without its variant."""
    return epath.Path(config_flags.get_config_filename(flags.FLAGS[flag.name]).partition(':')[0])


def required_section(flag: flags.FlagHolder, name: str) -> dict[str, Any]:
    """Returns {name: section}, one section of the config of --config. Raises UserError without it."""
    config = required_config(flag).to_dict()
    check_name(f'section in {flag.name}', name, config)
    return {name: config[name]}


def join_processes(spec: str) -> None:
    """Connects this process with the others of the same run, as `spec` says.

    '' is a run of one process, which connects with nobody. 'auto' lets JAX ask the cluster that it runs
    on. 'HOST:PORT,COUNT,INDEX' is the address of the first process, how many processes there are, and
    which of them this is, from 0. Raises UserError if `spec` is none of these.
    """
    if spec == 'auto':
        jax.distributed.initialize()
    elif spec:
        address, *numbers = spec.split(',')
        if len(numbers) != 2 or not all(number.isdigit() for number in numbers):
            raise UserError(f'--distributed is auto or HOST:PORT,COUNT,INDEX, got {spec!r}')
        count, index = map(int, numbers)
        jax.distributed.initialize(address, num_processes=count, process_id=index)


def refuse_flags(names: Sequence[str], command: str) -> None:
    """Raises UserError if one of the flags named was given, because `command` does not read them."""
    given = [name for name in names if flags.FLAGS[name].present]
    if given:
        raise UserError(f'{command} takes no --{given[0]}')


def set_compilation_cache() -> None:
    """Makes JAX keep compiled programs on disk, in the user's cache folder.

    Does nothing if the user has chosen a folder for them already, as by JAX_COMPILATION_CACHE_DIR.
    """
    if not jax.config.values['jax_compilation_cache_dir']:
        home = os.environ.get('XDG_CACHE_HOME', pathlib.Path.home() / '.cache')
        jax.config.update('jax_compilation_cache_dir', str(pathlib.Path(home) / 'cm_jax' / 'xla'))


def naturals(name: str, values: Sequence[str] | None) -> tuple[int, ...]:
    """Returns the values of the list flag --`name` as numbers, or () if it was not given.

    Raises UserError if one of them is not `Natural`.
    """
    values = values or ()
    try:
        return tuple(fit(Natural, int(value)) for value in values)
    except ValueError:
        raise UserError(f'--{name} takes {described(Natural)}, got {",".join(values)}') from None


def explain_override(argv: Sequence[str], config: ConfigDict) -> str:
    """Returns what is wrong with the first `--config.x=y` that names an unknown key; '' if none does.

    The text lists the legal keys.
    """
    for argument in argv:
        if not argument.startswith('--config.'):
            continue
        node: Any = config
        for part in argument.removeprefix('--config.').partition('=')[0].split('.'):
            legal = node.keys() if isinstance(node, ConfigDict) else ()
            try:
                check_name(f'config key in {argument}:', part, legal)
            except UserError as error:
                return str(error)
            node = node[part]
    return ''


def open_config(argv: Sequence[str]) -> list[str]:
    """Returns `argv` with the ~ of --config=FILE expanded, and makes what FILE imports importable.

    A file imports its relatives as `configs.common.digits`: the folder that holds `configs` is looked
    for above the file too, so that a command can be called from any folder. Raises UserError if ~ is
    no home folder, or if FILE is no file of Python.
    """
    argv = list(argv)
    for i, argument in enumerate(argv):
        name, is_set, path = argument.partition('=')
        if name.lstrip('-') != 'config' or name == 'config':
            continue
        if is_set:
            path = expanded(path)
            argv[i] = f'{name}={path}'
        elif i + 1 < len(argv):
            path = argv[i + 1]
        file = pathlib.Path(path.partition(':')[0])
        if file.suffix != '.py' or file.is_dir():
            raise UserError(
                f'--config={path}: name a file of Python, such as configs/digits_ect.py, perhaps with '
                ':VARIANT behind it'
            )
        folders = file.absolute().parents
        sys.path += [str(folder) for folder in folders if (folder / 'configs').is_dir()]
    return argv


def parse_flags(argv: Sequence[str], arguments: bool = False) -> Sequence[str]:
    """Parses the flags and returns `argv` without them.

    If they ask for help, it is printed, and the process ends with status 0; if anything is wrong with
    them, it ends with one line and status 2. `arguments` says whether the command takes arguments
    beside its flags, before or after them.
    """
    if usage.is_asked(list(argv)):
        print(usage.text())
        sys.exit(0)
    flags.FLAGS.set_gnu_getopt(arguments)
    with one_line_errors():
        argv = open_config(argv)
    try:
        rest = flags.FLAGS(argv)
    except flags.Error as error:
        text = str(error)
        if 'Traceback' in text:  # the config file raised an error; the last line says which
            text = text.strip().splitlines()[-1].removeprefix(f'{UserError.__module__}.UserError: ')
        for words, plain in PARSED.items():
            text = text.replace(words, plain)
        fail(text)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if str(error).endswith("has no attribute 'get_config'"):
            fail('the file of --config has no function get_config, which returns a config')
        sys.argv = [argument for argument in argv if not argument.startswith('--config.')]
        flags.FLAGS.unparse_flags()
        flags.FLAGS(sys.argv)  # parses again without the overrides; config_flags reads sys.argv too
        fail(explain_override(argv, flags.FLAGS['config'].value) or str(error))
    if len(rest) > 1 and not arguments:
        fail(f'unknown argument {rest[1]!r}; options begin with --')
    return rest


def run(main: Callable[[Sequence[str]], None], arguments: bool = False) -> None:
    """Runs a command: parses the flags, then calls `main(argv)` with what is left of `argv`.

    If the flags are wrong or `main` raises UserError, the process ends with one line and status 2.
    `arguments` says whether the command takes arguments beside its flags; if not, they are refused.
    """
    interrupts.install_for(pathlib.Path(sys.argv[0]).stem)
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')  # silences the C++ log of JAX's libraries
    # Libraries log a failure at length, in their threads too, and then raise it. The error that is
    # raised is shown; the log would only repeat it.
    logging.set_verbosity(logging.FATAL)
    python_logging.getLogger('asyncio').setLevel(python_logging.CRITICAL)
    sys.unraisablehook = ignore_late_callbacks
    warnings.formatwarning = one_line_warning

    def guarded(argv: Sequence[str]) -> None:
        set_compilation_cache()
        with one_line_errors():
            main(argv)

    app.run(guarded, flags_parser=functools.partial(parse_flags, arguments=arguments))
