"""The precision of the products in compiled programs, read from their HLO."""

import pathlib
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.stages import Lowered
from ml_collections import ConfigDict

from cm_jax.training.setup import set_up
from tests.helpers import tiny

PRODUCT = re.compile(r' (?:dot|convolution)\(')
PRECISION = re.compile(r'operand_precision=\{(\w+),(\w+)\}')
JIT = jax.jit


def precisions(hlo: str) -> set[str]:
    """The precisions of all dots and convolutions in the text of a program; 'default' is unwritten."""
    found: set[str] = set()
    for line in hlo.splitlines():
        if PRODUCT.search(line):
            named = PRECISION.search(line)
            found |= set(named.groups()) if named else {'default'}
    return found


def lowered_step(config: ConfigDict, folder: pathlib.Path) -> Lowered:
    """The train step of a config on the digits, lowered and not compiled; `folder` is its run's."""
    setup = set_up(tiny.settings_of(config), folder)
    batch = {
        'image': jax.ShapeDtypeStruct((config.batch_size, 8, 8, 1), jnp.float32),
        'label': jax.ShapeDtypeStruct((config.batch_size,), jnp.int32),
    }
    return setup.train_step.lower(setup.state_template, batch, setup.teacher)


class Recorder:
    """Takes the place of jax.jit: keeps the HLO of each program that is called, and runs none.

    What a program returns is zeros.
    """

    def __init__(self) -> None:
        self.texts: list[str] = []

    def jit(self, function: Callable | None = None, **options: Any) -> Callable:
        if function is None:
            return lambda function: self.jit(function, **options)
        jitted = JIT(function, **options)

        def call(*args: Any, **kwargs: Any) -> Any:
            lowered = jitted.lower(*args, **kwargs)
            self.texts.append(lowered.as_text('hlo'))
            return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), lowered.out_info)

        return call

    def precisions(self) -> set[str]:
        """Those of all programs together."""
        return set().union(*map(precisions, self.texts))
