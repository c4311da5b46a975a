"""Ends a command at Ctrl-C (SIGINT) and at SIGTERM: at once, by one line, with status 128 + signal.

A command may end at any moment as if it were killed, because it writes files whole or not at all. So
nothing is unwound. A thread waits for the signals: Python itself runs a handler only between two of its
instructions, not while a program compiles, and where libraries are imported an exception that a handler
raises may be swallowed.
"""

import atexit
import contextlib
import os
import re
import signal
import sys
import threading
from collections.abc import Callable

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# The commands that go on where they were stopped. The others compute all of their result again.
CONTINUE = ('train', 'search', 'evaluate')
CONTINUES = 'the same command continues'
STARTS_AGAIN = 'the same command starts again'


class _State:
    """What the thread does at the next signal: it calls `note`, or ends the process."""

    installed = False
    next_time = STARTS_AGAIN
    note: Callable[[int], None] | None = None


def install_for(command: str) -> None:
    """Ends this process at either signal from now on, by the line that is true of a command.

    A signal that the process was started to ignore, as by `nohup`, stays ignored. Must be called by the
    main thread. A second call changes the line alone.
    """
    fresh = any(argument.lower() in ('--fresh', '--fresh=true') for argument in sys.argv)
    tell(CONTINUES if command in CONTINUE and not fresh else STARTS_AGAIN)
    if _State.installed:
        return
    _State.installed = True
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    _set_handlers()
    os.register_at_fork(after_in_child=_uninstall)
    atexit.register(_uninstall)  # as the first to be registered it is the last to be called
    threading.Thread(target=_watch, args=(reading,), daemon=True).start()


def command_of_interpreter() -> str | None:
    """Returns NAME if this process runs `python -m cm_jax.NAME`, else None; '' for cm_jax itself."""
    if getattr(sys, 'argv', [''])[:1] != ['-m']:  # what Python sets while it looks for the module
        return None
    found = re.search(r' -\w*m ?cm_jax(?:\.(\w+))?(?: |$)', ' '.join(sys.orig_argv))
    return found and (found[1] or '')


def tell(next_time: str) -> None:
    """Sets what the line says of the same command, for example CONTINUES."""
    _State.next_time = next_time


def defer(note: Callable[[int], None]) -> None:
    """Calls `note(number)` at the next signal instead of ending the process; at the one after, it ends.

    `note` is called by another thread.
    """
    _State.note = note
    _set_handlers()  # a library that has started since may have set its own


def line(number: int) -> str:
    """Returns the line that tells of a signal."""
    return f'stopped by {signal.Signals(number).name}; {_State.next_time}'


def _set_handlers() -> None:
    """Lets the thread know of both signals, unless they are to be ignored."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: None)  # the system writes to the thread's pipe as well


def _watch(reading: int) -> None:
    """Acts on each signal; the body of the thread."""
    while True:
        number = os.read(reading, 1)[0]
        if number not in SIGNALS:
            continue
        note, _State.note = _State.note, None
        if note is None:
            _end(number)
        else:
            note(number)


def _end(number: int) -> None:
    """Prints the line and ends the process."""
    flush = threading.Thread(target=_flush_output, daemon=True)
    flush.start()
    flush.join(1)  # it blocks where nobody reads what was printed
    with contextlib.suppress(OSError):
        before = '\n' if os.isatty(2) or _has_bar() else ''  # behind the terminal's ^C or a bar
        os.write(2, f'{before}{line(number)}\n'.encode())
    os._exit(128 + number)


def _has_bar() -> bool:
    """Returns whether a progress bar is shown, which leaves its line without an end."""
    tqdm = getattr(sys.modules.get('tqdm'), 'tqdm', None)
    return bool(getattr(tqdm, '_instances', ()))


def _flush_output() -> None:
    """Writes what was printed and is still in memory, if there is anywhere to write it."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        sys.stdout.flush()


def _uninstall() -> None:
    """Gives the signals back to the system.

    At the end of the process the thread stops before it does; a forked process has no thread, and the
    pipe is its parent's.
    """
    signal.set_wakeup_fd(-1)
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    _State.installed = False
