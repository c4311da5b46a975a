"""Imports point down one list; flax, ml_collections, TensorFlow and torch stay where they may be.

Siblings (units of one layer) do not import each other; files of one package, and a command and its
parts (report.py, report_html.py), are one unit.
"""

import ast
import pathlib
import textwrap
from collections.abc import Iterator

import pytest

import cm_jax

ROOT = pathlib.Path(cm_jax.__file__).parent
LAYERS = (
    ('types', 'errors'),
    ('core',),
    ('models', 'data', 'objectives', 'samplers', 'metrics'),
    ('weights', 'optim', 'sharding', 'checkpoint', 'logs'),
    ('generate',),
    ('train_step', 'scores', 'config'),
    ('lcsc', 'references'),
    ('wiring',),
    ('run',),
    ('transfer',),
    ('commands',),
)
LAYER = {unit: i for i, units in enumerate(LAYERS) for unit in units}
COMMAND = len(LAYERS)  # every other file at the top is a command, or a part of one
CONFIGURED = {'config', 'run', 'commands'}  # these and the commands may import ml_collections
FORBIDDEN = ('tensorflow', 'torch', 'torchvision', 'jaxlib.xla_extension')


def unit_of(module: str, commands: set[str]) -> str:
    """'cm_jax.models.layers' -> 'models', 'cm_jax.report_html' -> 'report', 'cm_jax' -> ''."""
    name = module.split('.')[1] if '.' in module else ''
    owner = name.split('_')[0]
    return owner if name not in LAYER and owner in commands else name


def imported(source: str, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of all that a file imports, by statement or by import_module.

    `from a import b` gives a.b: whether b is a module or a name in a, a prefix of it is a module.
    """
    package = module.split('.') if is_package else module.split('.')[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            base = [*base, node.module] if node.module else base
            yield from ((node.lineno, '.'.join([*base, alias.name])) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
            ('import_module', '__import__')
        ):
            first = node.args[0]
            first = first.values[0] if isinstance(first, ast.JoinedStr) else first
            if isinstance(first, ast.Constant):
                yield node.lineno, first.value


def violations(source: str, module: str, commands: set[str], is_package: bool = False) -> list[str]:
    """What a file imports against the rules, one line each."""
    own = unit_of(module, commands)
    layer = LAYER.get(own, COMMAND)
    found = []

    def refuse(line: int, name: str, why: str) -> None:
        found.append(f'{module}:{line}: imports {name}: {why}')

    for line, name in imported(source, module, is_package):
        root = name.split('.')[0]
        if root == 'cm_jax':
            unit = unit_of(name, commands)
            if unit in ('', '*', own):
                if unit == '*':
                    refuse(line, name, 'name what you import')
                continue
            if own == '':
                refuse(line, name, 'the package imports nothing of its own')
            elif LAYER.get(unit, COMMAND) >= layer and not {own, unit} <= {'types', 'errors'}:
                refuse(line, name, f'{unit} is not below {own}')
        elif root == 'flax' and own != 'models':
            refuse(line, name, 'flax stays under models/')
        elif root == 'ml_collections' and own not in CONFIGURED and layer != COMMAND:
            refuse(line, name, 'ml_collections stays in config.py, run.py and the commands')
        elif any(name == other or name.startswith(other + '.') for other in FORBIDDEN):
            refuse(line, name, f'{root} is not used')
    return found


def modules() -> list[tuple[pathlib.Path, str]]:
    """Every file of the package with its module name."""
    found = []
    for path in sorted(ROOT.rglob('*.py')):
        parts = path.relative_to(ROOT.parent).with_suffix('').parts
        found.append((path, '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)))
    return found


COMMANDS = {path.stem for path in ROOT.glob('*.py')} - set(LAYER) - {'__init__'}


@pytest.mark.parametrize('path, module', modules(), ids=lambda value: str(value).split('/')[-1])
def test_imports_point_down(path, module):
    found = violations(path.read_text(), module, COMMANDS, is_package=path.name == '__init__.py')
    assert not found, '\n'.join(found)


def test_every_package_is_in_the_list():
    packages = {path.parent.name for path in ROOT.glob('*/__init__.py')}
    assert packages <= set(LAYER)


@pytest.mark.parametrize(
    'module, source, why',
    [
        ('cm_jax.core.ode', 'from cm_jax.models import build', 'models is not below core'),
        ('cm_jax.core.ode', 'import cm_jax.run', 'run is not below core'),
        ('cm_jax.core.ode', 'from cm_jax import run as r, errors', 'run is not below core'),
        ('cm_jax.core.ode', 'from ..models import layers', 'models is not below core'),
        ('cm_jax.core.ode', 'from .. import models', 'models is not below core'),
        ('cm_jax.core.ode', 'def f():\n    import cm_jax.models', 'models is not below core'),
        ('cm_jax.core.ode', 'if x:\n    from cm_jax.data import card', 'data is not below core'),
        (
            'cm_jax.core.ode',
            "importlib.import_module(f'cm_jax.models.{name}')",
            'models is not below core',
        ),
        ('cm_jax.objectives.ect', 'from cm_jax.models import build', 'not below objectives'),
        ('cm_jax.samplers.heun', 'from cm_jax.objectives import base', 'not below samplers'),
        ('cm_jax.logs', 'from cm_jax import sharding', 'sharding is not below logs'),
        ('cm_jax.errors', 'from cm_jax.core import tree', 'core is not below errors'),
        ('cm_jax.scores', 'from cm_jax.run import Run', 'run is not below scores'),
        ('cm_jax.lcsc.search', 'from cm_jax.run import Run', 'run is not below lcsc'),
        ('cm_jax.run', 'from cm_jax import commands', 'commands is not below run'),
        ('cm_jax.train', 'from cm_jax import sample', 'sample is not below train'),
        ('cm_jax.train', 'from cm_jax.report_html import page', 'report is not below train'),
        ('cm_jax.commands', 'from cm_jax import train', 'train is not below commands'),
        ('cm_jax', 'from cm_jax import run', 'the package imports nothing of its own'),
        ('cm_jax.train', 'from cm_jax import *', 'name what you import'),
        ('cm_jax.core.ode', 'import flax', 'flax stays'),
        ('cm_jax.train', 'from flax import linen as nn', 'flax stays'),
        ('cm_jax.train_step', 'import flax.struct', 'flax stays'),
        ('cm_jax.logs', 'from ml_collections import ConfigDict', 'ml_collections stays'),
        ('cm_jax.models.layers', 'import ml_collections', 'ml_collections stays'),
        ('cm_jax.data.tfds', 'import tensorflow as tf', 'tensorflow is not used'),
        ('cm_jax.weights.edm', 'import torch.nn', 'torch is not used'),
    ],
)
def test_a_planted_violation_is_found(module, source, why):
    found = violations(source, module, {'train', 'sample', 'report'}, module == 'cm_jax')
    assert len(found) == 1 and why in found[0]


def test_what_is_allowed_is_not_refused():
    for module, source in {
        'cm_jax.core.ode': 'import jax\nfrom cm_jax.core.process import expand\nfrom . import tree',
        'cm_jax.errors': 'from cm_jax.types import Array',
        'cm_jax.data.tfds': 'import tensorflow_datasets as tfds\nfrom cm_jax.data import Source',
        'cm_jax.models.adm': 'import flax.linen as nn\nfrom cm_jax.models import layers',
        'cm_jax.weights.edm': 'from cm_jax import models\nfrom cm_jax.core import tree',
        'cm_jax.config': 'from ml_collections import ConfigDict\nfrom cm_jax.logs import Log',
        'cm_jax.train': """
            from ml_collections import config_flags
            from cm_jax import commands, run, train_step
            from cm_jax.lcsc import search
            """,
        'cm_jax.report': 'from cm_jax import commands, report_html',
        'cm_jax.report_html': 'from cm_jax.report import page',
    }.items():
        assert not violations(textwrap.dedent(source), module, {'train', 'sample', 'report'})
