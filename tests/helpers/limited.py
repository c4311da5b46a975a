"""Readers of foreign files in a process of its own, which has 1 GB for them and is watched.

The limit is above what the process has once the readers are imported and have been used, so that what
JAX maps does not count. What a call really takes is measured as well, by the kernel's high-water mark.
"""

import concurrent.futures
import gc
import os
import pathlib
import re
import resource
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from PIL import Image

from cm_jax.errors import UserError
from tests.helpers import commands

LIMIT = 1 << 30  # bytes
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
FORBIDDEN = {  # Python's audit events of what no reader may do
    *('os.system', 'os.exec', 'os.fork', 'os.forkpty', 'os.posix_spawn', 'os.spawn', 'pty.spawn'),
    *('subprocess.Popen', 'socket.connect', 'socket.bind', 'urllib.Request', 'webbrowser.open'),
    *('ctypes.dlopen', 'pickle.find_class', 'code.__new__', 'shutil.rmtree', 'os.remove'),
    *('os.rename', 'os.rmdir', 'os.mkdir', 'os.link', 'os.symlink', 'os.chmod', 'os.truncate'),
}
done: list[str] = []  # what was done of it
watching = False


class Ended(NamedTuple):
    """How a call ended: what the UserError said, or '', and the megabytes that it took."""

    said: str
    megabytes: float


def memory(field: str) -> int:
    """A line of /proc/self/status, in bytes."""
    status = pathlib.Path('/proc/self/status').read_text()
    return int(re.search(rf'{field}:\s+(\d+) kB', status)[1]) << 10


def watch(event: str, arguments: tuple) -> None:
    """The audit hook."""
    if not watching:
        return
    if event == 'exec':  # importing a module does it, too
        is_bad = not os.path.exists(arguments[0].co_filename) and 'frozen' not in str(arguments[0])
    elif event == 'open':
        is_bad = bool((arguments[2] or 0) & WRITING) and '__pycache__' not in str(arguments[0])
    else:
        is_bad = event in FORBIDDEN
    if is_bad:
        done.append(f'{event} {arguments}')


def refusal(read: Callable, *arguments: Any) -> str:
    """What a reader says in its UserError, or '' if it reads.

    Fails if it raises anything else, says more than a line, ran out of memory, or did anything else
    than read.
    """
    global watching
    done.clear()
    watching = True
    try:
        read(*arguments)
        said = ''
    except UserError as error:
        said = str(error)
    finally:
        watching = False
    assert not done, [*done]
    assert '\n' not in said and ' object at 0x' not in said and len(said) < 3000, said
    assert 'takes more memory' not in said and 'MemoryError' not in said, said
    return said


def measured(read: Callable, *arguments: Any) -> Ended:
    """`refusal`, and what the call takes above what the process had."""
    gc.collect()
    pathlib.Path('/proc/self/clear_refs').write_text('5')  # sets the high-water mark back
    before = memory('VmRSS')
    said = refusal(read, *arguments)
    return Ended(said, (memory('VmHWM') - before) / 1e6)


def _begin(warm_up: Callable[[], None]) -> None:
    os.environ.update(commands.environment())
    Image.init()  # imports the formats of Pillow
    warm_up()
    sys.addaudithook(watch)
    limit = memory('VmData') + LIMIT
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def process(warm_up: Callable[[], None]) -> Iterator[Callable[..., Any]]:
    """Yields `call(function, *arguments)`, which calls a function in the limited process.

    `warm_up` is called there before the limit is set.
    """
    if not sys.platform.startswith('linux'):
        pytest.skip('the memory of a process is measured in Linux')
    commands.FORKS.set_forkserver_preload(list(commands.LIBRARIES))
    with concurrent.futures.ProcessPoolExecutor(
        1, commands.FORKS, initializer=_begin, initargs=(warm_up,)
    ) as pool:
        yield lambda function, *arguments: pool.submit(function, *arguments).result(600)
