"""`UserError`, the error for a mistake of the user, and the checks that raise it most often."""

import contextlib
import difflib
import errno
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, get_type_hints

from cm_jax.bounds import described, fit

# The `errno` of an OSError for a full disk, a full quota and a file that is too large.
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Those for a path that cannot be used: it may not be written, or a file is where a folder has to be.
UNUSABLE_PATH = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST),
    *(errno.ELOOP, errno.ENAMETOOLONG),
)

OBJECT = re.compile(r'<(?:[\w<>]+\.)*(\w+) object at 0x\w+>')
SHOWN = 200  # characters of another's text in a message, at most


class UserError(ValueError):
    """A mistake of the user. The commands print its text as one line and exit with status 2."""


def check_name(kind: str, name: str, legal: Iterable[str]) -> None:
    """Raises UserError if `name` is none of `legal`.

    The message says what kind of name it is, lists the legal names and suggests the closest one.
    """
    legal = sorted(legal)
    if name not in legal:
        close = difflib.get_close_matches(str(name), legal, n=1)
        hint = f' (did you mean {close[0]!r}?)' if close else ''
        raise UserError(f'unknown {kind} {name!r}{hint}; legal: {", ".join(legal) or "none"}')


def listed(steps: Sequence[int]) -> str:
    """Returns steps as words for a message, shortened if they are more than 12."""
    if len(steps) > 12:
        few = ', '.join(map(str, steps[:5]))
        return f'{few}, ... {steps[-2]}, {steps[-1]} ({len(steps)} steps)'
    return ', '.join(map(str, steps)) or 'none'


def shown(text: object) -> str:
    """Returns a text that another's file holds, fit for a message.

    At most SHOWN characters are kept, and '?' stands for those that move a terminal's cursor or cannot
    be printed.
    """
    return ''.join(c if c.isprintable() else '?' for c in str(text)[:SHOWN])


@contextlib.contextmanager
def begins_with(where: object) -> Iterator[None]:
    """A context in which the text of a UserError gets `where` and a colon before it."""
    try:
        yield
    except UserError as error:
        raise UserError(f'{where}: {error}') from None


@contextlib.contextmanager
def damage_is_one_line(where: object, problem: str = 'is truncated or damaged') -> Iterator[None]:
    """A context for reading a file that somebody else made, in which every error is a UserError.

    A damaged file can make a library raise nearly anything. The UserError says `where` and `problem`,
    then the error itself. One that is raised inside stays as it is.
    """
    try:
        yield
    except UserError:
        raise
    except MemoryError:
        raise UserError(f'{where} takes more memory to read than there is') from None
    except Exception as error:
        reason = OBJECT.sub(r'\1', f'{type(error).__name__}: {error}')
        raise UserError(f'{where} {problem} ({shown(reason)})') from error


def check_value(name: str, hint: Any, value: Any) -> Any:
    """Returns a value as its annotation has it (bounds.fit). Raises UserError if it is not legal.

    The message says what the value is of, what is legal, and what it is.
    """
    try:
        return fit(hint, value)
    except ValueError:
        raise UserError(f'{name} must be {described(hint)}, got {shown(repr(value))}') from None


def check_section(
    section: str, factory: Callable, settings: Mapping[str, Any], wired: Iterable[str] = ()
) -> dict[str, Any]:
    """Returns the settings of one section of a config, each as `factory` annotates it.

    `wired` names the parameters of `factory` that a config may not set. Raises UserError, naming the
    key, on a key that is no other parameter, and on a value that its annotation does not take.
    """
    hints = get_type_hints(factory, include_extras=True)
    legal = [name for name in inspect.signature(factory).parameters if name not in wired]
    checked = {}
    for key, value in settings.items():
        check_name(f'key config.{section}.{key}', key, legal)
        checked[key] = check_value(f'config.{section}.{key}', hints.get(key, Any), value)
    return checked


def build_from(section: str, factory: Callable, settings: Mapping[str, Any], **wired: Any) -> Any:
    """Returns `factory(**wired, **settings)`, where `settings` is one section of a config.

    `wired` are the arguments that the program itself passes and that a config may not set. The
    section may leave out a parameter that has a default. Raises UserError as `check_section` does, and
    if the section lacks a parameter without a default.
    """
    checked = check_section(section, factory, settings, wired)
    parameters = inspect.signature(factory).parameters
    legal = [name for name in parameters if name not in wired]
    missing = [
        name
        for name in legal
        if parameters[name].default is inspect.Parameter.empty and name not in settings
    ]
    if missing:
        raise UserError(
            f'config.{section} lacks {", ".join(missing)}; its keys: {", ".join(legal)}'
        )
    return factory(**wired, **checked)
