"""The precision of the products in compiled programs, read from their HLO."""

import re
from collections.abc import Callable
from typing import Any

import jax

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


class Recorder:
    """Takes the place of jax.jit, and keeps the HLO of each program that is called."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def jit(self, function: Callable | None = None, **options: Any) -> Callable:
        if function is None:
            return lambda function: self.jit(function, **options)
        jitted = JIT(function, **options)

        def call(*args: Any, **kwargs: Any) -> Any:
            self.texts.append(jitted.lower(*args, **kwargs).as_text('hlo'))
            return jitted(*args, **kwargs)

        return call

    def precisions(self) -> set[str]:
        """Those of all programs together."""
        return set().union(*map(precisions, self.texts))
