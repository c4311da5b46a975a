"""`python -m cm_jax` lists the commands without JAX; `--help` of each shows all of its own flags."""

import pathlib
import re
import subprocess
import sys

import pytest

import cm_jax
from cm_jax import usage
from tests.helpers import commands

PACKAGE = pathlib.Path(cm_jax.__file__).parent
COMMANDS = sorted(path for path in PACKAGE.glob('*.py') if 'cli.run(' in path.read_text())
PROGRAM = """
import runpy, sys
runpy.run_module('cm_jax', run_name='__main__')
sys.exit('jax' in sys.modules or 'absl' in sys.modules)
"""
# A flag in the source of a command, by its name or by the function of cm_jax.cli that defines it.
DEFINED = re.compile(
    r"(?:flags\.DEFINE_\w+|cli\.number_flag)\(\s*'(\w+)'"
    r'|cli\.(config|workdir|fresh|step|ema|unsupported|extractor)_flags?\('
)
OF_EXTRACTOR = {'extractor', 'weights', 'download', 'batch_size'}
OF_ABSL = {'logtostderr', 'verbosity', 'pdb', 'helpfull', 'jax_platforms', 'only_check_args'}


def test_the_commands_are_listed_with_the_first_lines_of_their_docstrings():
    ended = subprocess.run(
        [sys.executable, '-c', PROGRAM], cwd=PACKAGE.parent, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr  # 1 if JAX was imported
    title, blank, *lines = ended.stdout.splitlines()
    assert 'python -m cm_jax.COMMAND --help' in title and not blank
    listed = dict(line.split(maxsplit=1) for line in lines)
    assert {'train', 'sample', 'search', 'report'} <= listed.keys()
    assert list(listed) == [path.stem for path in COMMANDS]
    for path in COMMANDS:
        assert path.read_text().startswith(f'"""{listed[path.stem]}\n')


def defined(source: str) -> set[str]:
    """The names of the flags that the source of a command defines."""
    names = {name or shared for name, shared in DEFINED.findall(source)}
    return names - {'extractor'} | OF_EXTRACTOR if 'extractor_flags' in source else names


@pytest.mark.parametrize('path', COMMANDS, ids=lambda path: path.stem)
def test_help_shows_the_flags_of_a_command_in_groups_and_no_others(path):
    ended = commands.fork(path.stem, '--help', '--no_such_flag')
    assert ended.status == 0 and not ended.err
    source = path.read_text()
    shown = re.findall(r'^  --(?:\[no\])?(\w+)(?:=| )', ended.out, re.MULTILINE)
    assert sorted(shown) == sorted(defined(source)) and not OF_ABSL & set(shown)
    titles = [title for title in usage.GROUPS if f'\n\n{title}\n' in ended.out]
    assert bool(titles) == bool(shown) and usage.OTHERS not in ended.out
    assert ended.out.startswith(source.removeprefix('"""').partition('\n')[0])
    assert ('--config.KEY=VALUE' in ended.out) == ('config' in shown)
    assert 'None' not in ended.out and max(map(len, ended.out.splitlines())) <= 108
