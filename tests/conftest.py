"""What every test shares: strict JAX, and the numbers of the papers' own code."""

import json
import pathlib
from typing import Any, NamedTuple

import cm_jax  # isort: skip  # before JAX, as in the commands: it sets a flag of the CPU compiler
import jax
import numpy as np
import pytest

del cm_jax
FIXTURES = pathlib.Path(__file__).parent / 'fixtures'

jax.config.update('jax_numpy_rank_promotion', 'raise')


class Recorded(NamedTuple):
    """One file of fixtures: its arrays by name, and how they were made."""

    arrays: dict[str, np.ndarray]
    config: dict[str, Any]


@pytest.fixture(scope='session')
def recorded():
    """`recorded(name) -> Recorded`: numbers produced by the papers' own code."""

    def load(name: str) -> Recorded:
        with np.load(FIXTURES / f'{name}.npz') as file:
            arrays = dict(file)
        return Recorded(arrays, json.loads(str(arrays.pop('config_json'))))

    return load
