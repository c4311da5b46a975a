"""Starting the commands as a user does, for the tests."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent


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


def run(
    command: str, *arguments: object, devices: int = 1, timeout: float = 300, **settings
) -> str:
    """Runs a command to its end; its output. Fails if it does, or after `timeout` seconds."""
    process = start(command, *arguments, devices=devices, **settings)
    out, err = process.communicate(timeout=timeout)
    assert process.returncode == 0, err[-3000:]
    return out


def error(command: str, *arguments: object, devices: int = 1, **settings) -> str:
    """The one line that a command which must be refused prints; asserts exit status 2."""
    process = start(command, *arguments, devices=devices, **settings)
    _, err = process.communicate(timeout=300)
    lines = [line for line in err.splitlines() if line.strip()]
    assert process.returncode == 2, err[-3000:]
    assert lines[-1].startswith('error: '), err[-3000:]
    assert 'Traceback' not in err, err[-3000:]
    return lines[-1]
