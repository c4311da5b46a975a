"""Imports point down one list; flax, ml_collections, TensorFlow and torch stay where they may be.

A unit is a file or a folder at the top of the package: the first component of a module's path.
"""

import ast
import pathlib
import textwrap
from collections.abc import Iterator

import cm_jax

ROOT = pathlib.Path(cm_jax.__file__).parent
# From the bottom to the top. A unit imports only what stands above its own line here; the units of one
# line do not import each other.
LAYERS = (
    ('interrupts',),
    ('types', 'bounds'),
    ('errors',),
    ('locks', 'terminal', 'usage'),
    ('files',),
    ('plotting',),
    ('core',),
    ('models', 'data', 'objectives', 'samplers', 'metrics'),
    ('weights', 'sharding', 'editing'),
    ('checkpoint',),
    ('generate',),
    ('settings',),
    ('config',),
    ('run_folder',),
    ('evaluation',),
    ('wiring',),
    ('run',),
    ('training', 'lcsc'),
    ('reports',),
    ('cli',),
)
COMMANDS = (
    *('train', 'sample', 'evaluate', 'reference', 'search', 'tune_levels', 'edit', 'prepare'),
    *('check_precision', 'convert', 'report', 'study', 'recipes', '__main__'),
)
LAYER = {unit: number for number, units in enumerate((*LAYERS, COMMANDS)) for unit in units}
# The files of LCSC's algorithm are pure: they know no run folder and no config.
ALGORITHM = ('ask_tell', 'archive', 'cma_es', 'evolution', 'random_search', 'profiles', 'space')
PURE = ('core', 'types', 'bounds', 'errors', 'lcsc')
CONFIGURED = {'config', 'run', 'cli', *COMMANDS}  # these may import ml_collections
FORBIDDEN = ('tensorflow', 'torch', 'torchvision', 'jaxlib.xla_extension')


def unit_of(module: str) -> str:
    """'cm_jax.models.layers' -> 'models', 'cm_jax.train' -> 'train', 'cm_jax' -> ''."""
    return module.split('.')[1] if '.' in module else ''


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


def problem(own: str, module: str, name: str) -> str | None:
    """Why a file of the unit `own` may not import `name`, or None."""
    root = name.split('.')[0]
    if root == 'cm_jax':
        unit = unit_of(name)
        if unit == '*':
            return 'name what you import'
        if unit == '' or (unit == own and own not in COMMANDS):
            return None
        if own == '':
            return None if unit in LAYERS[0] else f'the package imports only {LAYERS[0]} of its own'
        if LAYER[unit] >= LAYER[own]:
            return f'{unit} is not below {own}'
        if own == 'lcsc' and module.split('.')[-1] in ALGORITHM and unit not in PURE:
            return "the files of LCSC's algorithm are pure"
    elif root == 'flax' and own != 'models':
        return 'flax stays under models/'
    elif root == 'ml_collections' and own not in CONFIGURED:
        return 'ml_collections stays in config.py, run.py, cli.py and the commands'
    elif any(name == other or name.startswith(other + '.') for other in FORBIDDEN):
        return f'{root} is not used'
    return None


def violations(source: str, module: str, is_package: bool = False) -> list[str]:
    """What a file imports against the rules, one line each."""
    reasons = (
        (line, name, problem(unit_of(module), module, name))
        for line, name in imported(source, module, is_package)
    )
    return [f'{module}:{line}: imports {name}: {why}' for line, name, why in reasons if why]


def test_imports_point_down_and_every_unit_is_in_the_list():
    broken, units = [], set()
    for path in sorted(ROOT.rglob('*.py')):
        parts = path.relative_to(ROOT.parent).with_suffix('').parts
        module = '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)
        units.add(unit_of(module))
        broken += violations(path.read_text(), module, is_package=path.name == '__init__.py')
    assert units - {''} == set(LAYER)
    assert not broken, '\n'.join(broken)


def test_planted_violations_are_named():
    for module, source, why in (
        ('cm_jax.core.ode', 'from cm_jax.models import build', 'models is not below core'),
        ('cm_jax.core.ode', 'import cm_jax.run', 'run is not below core'),
        ('cm_jax.core.ode', 'from cm_jax import run as r, errors', 'run is not below core'),
        ('cm_jax.core.ode', 'from ..models import layers', 'models is not below core'),
        ('cm_jax.core.ode', 'from .. import models', 'models is not below core'),
        ('cm_jax.core.ode', 'def f():\n    import cm_jax.models', 'models is not below core'),
        ('cm_jax.core.ode', 'if x:\n    from cm_jax.data import card', 'data is not below core'),
        ('cm_jax.core.ode', "import_module(f'cm_jax.models.{name}')", 'models is not below core'),
        ('cm_jax.objectives.ect', 'from cm_jax.models import build', 'not below objectives'),
        ('cm_jax.samplers.heun', 'from cm_jax.objectives import ect', 'not below samplers'),
        ('cm_jax.sharding', 'from cm_jax import checkpoint', 'checkpoint is not below sharding'),
        ('cm_jax.errors', 'from cm_jax.core import tree', 'core is not below errors'),
        ('cm_jax.evaluation.scores', 'from cm_jax.run import Run', 'run is not below evaluation'),
        ('cm_jax.lcsc.ask_tell', 'from cm_jax.run import Run', 'algorithm are pure'),
        ('cm_jax.lcsc.evolution', 'from cm_jax import settings', 'algorithm are pure'),
        ('cm_jax.run', 'from cm_jax import cli', 'cli is not below run'),
        ('cm_jax.train', 'from cm_jax import sample', 'sample is not below train'),
        ('cm_jax.reports.page', 'from cm_jax.report import page', 'report is not below reports'),
        ('cm_jax.cli', 'from cm_jax import train', 'train is not below cli'),
        ('cm_jax', 'from cm_jax import run', 'the package imports only'),
        ('cm_jax.train', 'from cm_jax import *', 'name what you import'),
        ('cm_jax.core.ode', 'import flax', 'flax stays'),
        ('cm_jax.train', 'from flax import linen as nn', 'flax stays'),
        ('cm_jax.training.step', 'import flax.struct', 'flax stays'),
        ('cm_jax.training.logs', 'from ml_collections import ConfigDict', 'ml_collections stays'),
        ('cm_jax.models.layers', 'import ml_collections', 'ml_collections stays'),
        ('cm_jax.data.sources.tfds', 'import tensorflow as tf', 'tensorflow is not used'),
        ('cm_jax.weights.edm', 'import torch.nn', 'torch is not used'),
    ):
        reported = violations(source, module, is_package=module == 'cm_jax')
        assert len(reported) == 1 and why in reported[0], (module, source, reported)


def test_what_is_allowed_is_not_refused():
    for module, source in {
        'cm_jax': 'from cm_jax import interrupts',
        'cm_jax.core.ode': 'import jax\nfrom cm_jax.core.process import expand\nfrom . import tree',
        'cm_jax.errors': 'from cm_jax.types import Array',
        'cm_jax.data.sources.tfds': 'import tensorflow_datasets\nfrom cm_jax.data import Source',
        'cm_jax.models.adm': 'import flax.linen as nn\nfrom cm_jax.models import layers',
        'cm_jax.weights.edm': 'from cm_jax import models\nfrom cm_jax.core import tree',
        'cm_jax.config': 'from ml_collections import ConfigDict\nfrom cm_jax.files import sha256',
        'cm_jax.lcsc.job': 'from cm_jax.run import Run\nfrom cm_jax.lcsc import ask_tell',
        'cm_jax.lcsc.ask_tell': 'from cm_jax.errors import build_from\nfrom cm_jax.lcsc import archive',
        'cm_jax.train': """
            from ml_collections import config_flags
            from cm_jax import cli, run
            from cm_jax.training import step
            """,
        'cm_jax.report': 'from cm_jax import cli\nfrom cm_jax.reports import page',
    }.items():
        assert not violations(textwrap.dedent(source), module), module
