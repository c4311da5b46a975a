"""Starting the commands as a user does, for the tests.

`start` is a process like a user's. `run` and `error` fork one that has imported the libraries, which
saves their three seconds each time; nothing of JAX has started there, and the command's own modules
are not yet imported.
"""

import json
import multiprocessing
import os
import pathlib
import runpy
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import NamedTuple
from unittest import mock

from tests.helpers.paths import ROOT

LIBRARIES = ('cm_jax', 'orbax.checkpoint', 'cm_jax.training.setup', 'cm_jax.cli', 'tqdm')
LIBRARIES += ('cmaes', 'matplotlib.figure', 'PIL.Image')
FORKS = multiprocessing.get_context('forkserver')


def environment(devices: int = 1) -> dict[str, str]:
    """The environment of a command on `devices` fake CPU devices."""
    flags = f'{os.environ["XLA_FLAGS"]} --xla_force_host_platform_device_count={devices}'
    return os.environ | {'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': flags, 'PYTHONPATH': str(ROOT)}


def start(command: str, *arguments: object, devices: int = 1, **settings) -> subprocess.Popen:
    """Starts `python -m cm_jax.<command>` in the repository."""
    return subprocess.Popen(
        [sys.executable, '-m', f'cm_jax.{command}', *map(str, arguments)],
        cwd=ROOT,
        env=environment(devices),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **settings,
    )


def run_together(command: str, *arguments: object, count: int = 2, devices: int = 2) -> list[str]:
    """Runs one command in `count` processes to its end; what each has printed. Fails if one does."""
    with socket.socket() as free:
        free.bind(('localhost', 0))
        port = free.getsockname()[1]
    processes = [
        start(command, *arguments, f'--distributed=localhost:{port},{count},{i}', devices=devices)
        for i in range(count)
    ]
    ended = [process.communicate(timeout=600) for process in processes]
    for process, (_, err) in zip(processes, ended, strict=True):
        assert process.returncode == 0, err[-3000:]
    return [out for out, _ in ended]


def on_devices(devices: int, expression: str, module: str) -> object:
    """What `expression`, of the names of a module, is in a process of so many devices, through JSON."""
    script = (
        f'import json, jax\nfrom {module} import *\nassert jax.device_count() == {devices}\n'
        f'print(json.dumps({expression}))'
    )
    found = subprocess.run(
        [sys.executable, '-c', script],
        cwd=ROOT,
        env=environment(devices),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(found.stdout.splitlines()[-1])


class Ended(NamedTuple):
    """A command that has ended."""

    status: int
    out: str
    err: str


def fork(
    command: str,
    *arguments: object,
    devices: int = 1,
    timeout: float = 300,
    package: str = 'cm_jax',
) -> Ended:
    """Runs a command to its end."""
    with tempfile.TemporaryDirectory() as folder:
        names = [f'{folder}/out', f'{folder}/err']
        line = f'{package}.{command}', [str(a) for a in arguments], names
        status = in_fork(_run_module, *line, devices=devices, timeout=timeout)
        out, err = (pathlib.Path(name).read_text() for name in names)
        return Ended(status, out, err)


def in_fork(
    function: Callable, *arguments: object, devices: int = 1, timeout: float = 300
) -> int | None:
    """Calls a function in a fork that has imported the libraries; the status that it ends with."""
    FORKS.set_forkserver_preload(list(LIBRARIES))
    settings = function, arguments, environment(devices)
    process = FORKS.Process(target=_forked, args=settings)
    with mock.patch.dict(os.environ, JAX_PLATFORMS='cpu'):  # as the libraries are imported
        process.start()
    process.join(timeout)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError(f'{arguments[0]} took more than {timeout} s')
    return process.exitcode


def _forked(function: Callable, arguments: tuple, env: dict) -> None:
    """What the fork does."""
    os.chdir(ROOT)
    os.environ.update(env)
    function(*arguments)


def _run_module(module: str, arguments: list, names: list) -> None:
    """Does what `python -m` would; its output goes to the files of these names."""
    for name, descriptor in zip(names, (1, 2), strict=True):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT), descriptor)
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name='__main__', alter_sys=True)
    finally:
        sys.stdout.flush()


def run(command: str, *arguments: object, devices: int = 1, timeout: float = 300) -> str:
    """Runs a command to its end; its output. Fails if it does, or after `timeout` seconds."""
    ended = fork(command, *arguments, devices=devices, timeout=timeout)
    assert ended.status == 0, ended.err[-3000:]
    return ended.out


def error(command: str, *arguments: object, devices: int = 1) -> str:
    """The one line that a command which must be refused prints."""
    ended = fork(command, *arguments, devices=devices)
    return refusal(ended.status, ended.err)


def refusal(status: int, err: str) -> str:
    """The one line of a refused command; asserts exit status 2."""
    lines = [line for line in err.splitlines() if line.strip()]
    assert status == 2, err[-3000:]
    assert lines[-1].startswith('error: '), err[-3000:]
    assert 'Traceback' not in err, err[-3000:]
    return lines[-1]
