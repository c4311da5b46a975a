"""How every command starts and fails: `run(main)`."""

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterator, Sequence

from absl import app, logging

from cm_jax.errors import UserError

FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def fail(text: str) -> None:
    """Prints one line and ends the process with status 2."""
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


def run(main: Callable[[Sequence[str]], None]) -> None:
    """Parses the flags, then calls `main(argv)`.

    A wrong flag or `--config.x=y` override ends with one line and status 2, as does a UserError
    from `main`.
    """
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')  # silences the C++ log of JAX's libraries
    logging.set_verbosity(logging.ERROR)
    logging.use_absl_handler()

    def parse(argv: Sequence[str]) -> Sequence[str]:
        try:
            with one_line_errors():
                rest = app.parse_flags_with_usage(argv)
        except (
            AttributeError,
            KeyError,
            TypeError,
            ValueError,
        ) as error:  # a --config.x=y override
            fail(str(error).strip('"\''))
        if len(rest) > 1:
            fail(f'unknown argument {rest[1]!r}; options begin with --')
        return rest

    def guarded(argv: Sequence[str]) -> None:
        with one_line_errors():
            main(argv)

    app.run(guarded, flags_parser=parse)
