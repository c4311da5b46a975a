"""Locks, so that two commands that write the same files do not run at once.

`train` and `search` hold the lock of their run folder for as long as they run, `prepare` that of a data
set, `convert import` that of the folder that it builds. A second one is refused, and told who holds it.
Commands that add to a run folder (`evaluate`, `tune_levels`) may run beside a training and beside each
other: they lock one file for the moment in which they change it.

The lock is the system's, on a file: it ends with the process that holds it, however that ends. Cloud
storage and some network file systems have no such locks.
"""

import contextlib
import errno
import fcntl
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator

from etils import epath

from cm_jax.errors import UserError

LOCK = 'lock'  # the file in a folder that is locked; it says who holds the lock
# The `errno` of an OSError where a file system has no locks.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF)


@contextlib.contextmanager
def hold(folder: epath.Path, name: str = LOCK, *, wait: bool = False) -> Iterator[None]:
    """Holds the lock of a folder, which is made if it does not exist; `name` is that of its file.

    If another process holds it, this one waits for it with `wait`, and raises UserError without: the
    error says which process on which machine, since when, and by which command. Where there are no
    locks, the terminal is told, and the body runs without one.
    """
    handle = None
    if not _in_cloud(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = _lock_or_refuse(folder, name, wait)
    if handle is None:
        print(f'  {folder} has no file locks: no other command may write there', flush=True)
        yield
        return
    # Through this descriptor the file is found even if the folder has been renamed meanwhile.
    inside = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a lock on a full disk is one, too
            os.ftruncate(handle, 0)
            os.write(handle, _this_process().encode())
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=inside)
        os.close(inside)
        os.close(handle)


def check_free(folder: epath.Path) -> None:
    """Raises UserError, as `hold` does, if another process holds the lock of a folder."""
    if not _in_cloud(folder) and (folder / LOCK).exists():
        with hold(folder):
            pass


@contextlib.contextmanager
def locked_file(path: epath.Path) -> Iterator[int]:
    """Opens a local file to append to it, and locks it; waits while another process has the lock.

    The file is made if it does not exist. Yields its descriptor. Where there are no locks it does
    without one.
    """
    handle = _lock(path, 0)
    handle = _open(path) if handle is None else handle
    try:
        yield handle
    finally:
        os.close(handle)


def _lock_or_refuse(folder: epath.Path, name: str, wait: bool) -> int | None:
    """Returns the descriptor of the locked file of a folder; None where there are no locks.

    Raises UserError if another process has the lock, unless it is to wait.
    """
    path = folder / name
    try:
        handle = _lock(path, 0 if wait else fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(
            f'{folder} is in use by {_holder(path)}; wait until that ends, or stop it'
        ) from None
    if handle is None:
        path.unlink(missing_ok=True)
    return handle


def _in_cloud(path: epath.Path) -> bool:
    """Returns whether a path is that of cloud storage, as gs://bucket/run."""
    return '://' in str(path)


def _open(path: epath.Path) -> int:
    """Returns the descriptor of a file, opened to read and to append to; makes the file."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)


def _lock(path: epath.Path, no_wait: int) -> int | None:
    """Returns the descriptor of a file that is locked; None where there are no locks.

    `no_wait` is 0, or LOCK_NB: then BlockingIOError is raised if another process has the lock.
    """
    while True:
        handle = _open(path)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | no_wait)
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                return handle
        except FileNotFoundError:
            pass
        except OSError as error:
            os.close(handle)
            if error.errno in NO_LOCKS:
                return None
            raise
        os.close(handle)  # another process has removed or replaced the file since it was opened


def _this_process() -> str:
    """Returns what the lock says of this process."""
    since, command = time.strftime('%Y-%m-%d %H:%M:%S %z'), shlex.join(sys.orig_argv)
    return f'process {os.getpid()} on {socket.gethostname()} since {since}: {command}'


def _holder(path: epath.Path) -> str:
    """Returns what the file of a lock says of the process that holds it."""
    with contextlib.suppress(OSError):
        return path.read_text() or 'another command'
    return 'another command'
