"""`python -m cm_jax` lists the commands, and does not import JAX for it."""

import pathlib
import subprocess
import sys

import cm_jax

PACKAGE = pathlib.Path(cm_jax.__file__).parent
PROGRAM = """
import runpy, sys
runpy.run_module('cm_jax', run_name='__main__')
sys.exit('jax' in sys.modules or 'absl' in sys.modules)
"""


def test_the_commands_are_listed_with_the_first_lines_of_their_docstrings():
    ended = subprocess.run(
        [sys.executable, '-c', PROGRAM], cwd=PACKAGE.parent, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr  # 1 if JAX was imported
    title, blank, *lines = ended.stdout.splitlines()
    assert 'python -m cm_jax.COMMAND --help' in title and not blank
    listed = dict(line.split(maxsplit=1) for line in lines)
    commands = [path for path in PACKAGE.glob('*.py') if 'cli.run(' in path.read_text()]
    assert {'train', 'sample', 'search', 'report'} <= listed.keys()
    assert list(listed) == sorted(path.stem for path in commands)
    for path in commands:
        assert path.read_text().startswith(f'"""{listed[path.stem]}\n')
