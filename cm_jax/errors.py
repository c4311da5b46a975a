"""`UserError`, the error for a mistake of the user, the two checks that raise it most often, words."""

import difflib
import errno
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

# The `errno` of an OSError for a full disk, a full quota and a file that is too large.
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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


def build_from(section: str, factory: Callable, settings: Mapping[str, Any], **wired: Any) -> Any:
    """Returns `factory(**wired, **settings)`, where `settings` is one section of a config.

    `wired` are the arguments that the program itself passes and that a config may not set. The
    section may leave out a parameter that has a default. Raises UserError, naming the key, if the
    section has a key that is no parameter or lacks a parameter without a default.
    """
    parameters = inspect.signature(factory).parameters
    legal = [name for name in parameters if name not in wired]
    for key in settings:
        check_name(f'key config.{section}.{key}', key, legal)
    missing = [
        name
        for name in legal
        if parameters[name].default is inspect.Parameter.empty and name not in settings
    ]
    if missing:
        raise UserError(
            f'config.{section} lacks {", ".join(missing)}; its keys: {", ".join(legal)}'
        )
    return factory(**wired, **settings)
