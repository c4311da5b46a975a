"""What every test shares: strict JAX, quick compilation, the numbers of the papers' own code."""

import json
import os
from typing import Any, NamedTuple

# Before JAX starts, for the tests and for the commands that they start: most of their time goes
# into compiling small programs, which takes half as long without the costly passes.
os.environ.setdefault(
    'XLA_FLAGS', '--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true'
)

import cm_jax  # noqa: F401  isort: skip  # before JAX, as in the commands: it sets a CPU flag
import jax
import numpy as np
import pytest

from tests.helpers.paths import FIXTURES, ROOT, TESTS

LONGEST = [
    *('commands/test_train.py', 'commands/test_story.py', 'commands/test_stored_runs.py'),
    *('commands/test_refusals.py', 'commands/test_evaluate.py', 'test_configs.py'),
]
# Compiled programs are kept for the next run of the tests, and of the commands that they start.
KEPT = {
    'jax_compilation_cache_dir': str(ROOT / '.pytest_cache' / 'jax'),
    'jax_persistent_cache_min_compile_time_secs': 0.2,
}

jax.config.update('jax_numpy_rank_promotion', 'raise')
for option, value in KEPT.items():
    if option.upper() not in os.environ:
        jax.config.update(option, value)
        os.environ[option.upper()] = str(value)


@pytest.fixture(scope='module', autouse=True)
def forget_programs():
    """After each file: else a worker holds the compiled programs of all of them, gigabytes."""
    yield
    jax.clear_caches()


class Recorded(NamedTuple):
    """One file of fixtures: its arrays by name, and how they were made."""

    arrays: dict[str, np.ndarray]
    config: dict[str, Any]


def pytest_collection_modifyitems(items):
    """The longest files first, so that two workers end together (with --no-loadscope-reorder)."""
    order = [TESTS / name for name in LONGEST]
    items.sort(key=lambda item: (*order, item.path).index(item.path))


@pytest.fixture(scope='session')
def recorded():
    """`recorded(name) -> Recorded`: numbers produced by the papers' own code."""

    def load(name: str) -> Recorded:
        with np.load(FIXTURES / f'{name}.npz') as file:
            arrays = dict(file)
        return Recorded(arrays, json.loads(str(arrays.pop('config_json'))))

    return load
