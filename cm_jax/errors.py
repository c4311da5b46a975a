"""What a user got wrong, said in one line: `UserError`, and the two checks that raise most."""

import difflib
import errno
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # what an OSError says of one


class UserError(ValueError):
    """A user's slip. The commands print its text as one line and exit with status 2."""


def check_name(kind: str, name: str, legal: Iterable[str]) -> None:
    """Raises UserError unless `name` is one of `legal`; the error lists them."""
    legal = sorted(legal)
    if name not in legal:
        close = difflib.get_close_matches(str(name), legal, n=1)
        hint = f' (did you mean {close[0]!r}?)' if close else ''
        raise UserError(f'unknown {kind} {name!r}{hint}; legal: {", ".join(legal) or "none"}')


def build_from(section: str, factory: Callable, settings: Mapping[str, Any], **wired: Any) -> Any:
    """Returns `factory(**wired, **settings)`, with wrong keys refused by name first.

    `settings` is one section of a config; `wired` is what the program adds, which a config may not
    set. A default of the factory may be left out of the section.
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
